"""A completion as the model is asked for it."""

from typing import Any

import pytest

from simulator import chat
from simulator.errors import ApiError
from simulator.faults import Faults, FaultSettings
from simulator.prompt import Prompt
from simulator.provider import Asking, Provider

TOOL = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_a", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
ANSWERED = [{"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "call_a", "content": "noon"}]


def asked(*messages: Any, **body: Any) -> Asking:
    """Return what the model is asked by these messages; texts are the user's."""
    given = [{"role": "user", "content": one} if isinstance(one, str) else one for one in messages]
    return chat.asked(Provider(Faults(FaultSettings())), {"model": "gpt-4o", "messages": given, **body}, {})


def test_messages_of_system_and_developer_are_instructions() -> None:
    """Both, in their order, and what they ask for is done as on Responses."""
    parts = [{"type": "text", "text": "Use get_time."}]
    asking = asked(
        {"role": "system", "content": "Be brief."}, {"role": "developer", "content": parts}, "Hello", tools=[TOOL]
    )
    assert asking.request["instructions"] == "Be brief.\n\nUse get_time."
    assert asking.reply.calls == (("get_time", "{}"),)
    assert asked("Hello", tools=[TOOL]).reply.calls == ()


def test_only_what_is_behind_the_model_s_last_word_is_new() -> None:
    """Outputs that came in an earlier request are history: they are given once, whatever the next requests hold."""
    first = asked("Hello", *ANSWERED, tools=[TOOL])
    assert [item["type"] for item in first.inputs] == ["function_call_output"]
    later = asked("Hello", *ANSWERED, {"role": "assistant", "content": "It is noon."}, "And now?", tools=[TOOL])
    assert [item["content"] for item in later.inputs] == ["And now?"]
    assert len(later.history) == 4


def test_the_model_reads_the_same_as_on_responses() -> None:
    """Tools, choice, format, request and outputs are one prompt, whichever protocol they came by."""
    schema = {"type": "object", "properties": {}}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOL]}}
    asking = asked(
        "Hello", *ANSWERED, tools=[TOOL], tool_choice=choice, response_format=wanted, parallel_tool_calls=False
    )
    there = {
        "tools": [{"type": "function", **TOOL["function"]}],  # type: ignore[dict-item]
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "get_time"}],
        },
        "text": {"format": {"type": "json_schema", "name": "n", "schema": schema}},
        "parallel_tool_calls": False,
    }
    items = [
        {"type": "message", "role": "user", "content": "Hello"},
        {"type": "function_call", "call_id": "call_a", "name": "get_time", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_a", "output": "noon"},
    ]
    assert Prompt.of(asking.request, asking.history + asking.inputs, 1) == Prompt.of(there, items, 1)


FUNCTION = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("messages", "body", "param"),
    [
        ([{"role": "user", "content": 5}], {}, "messages[0].content"),
        (
            [{"role": "assistant", "tool_calls": [{"id": "a", "function": "f"}]}],
            {},
            "messages[0].tool_calls[0].function",
        ),
        (["x"], {"tools": [{"type": "function", "function": "f"}]}, "tools[0].function.name"),
        (["x"], {"tools": [FUNCTION], "tool_choice": {"type": "function"}}, "tool_choice.function.name"),
        (["x"], {"response_format": {"type": "json_schema", "json_schema": 5}}, "response_format.json_schema.name"),
    ],
)
def test_what_is_malformed_is_refused_by_name(messages: Any, body: Any, param: str) -> None:
    """A mistake of a client is a 400, never a 500 that it would try again."""
    with pytest.raises(ApiError) as refused:
        asked(*messages, **body)
    assert (refused.value.status, refused.value.body["error"]["param"]) == (400, param)
