"""The provider's own tools in the simulator, seen through the SDK and judged by OpenAI's published document."""

import json
import time
from typing import Any

import openai
import pytest

CODE = '[[hosted code_interpreter {"code": "print(1 + 2)", "logs": "3"}]]'
FOUND = {"file_id": "file_1", "filename": "a.txt", "text": "Paris is old.", "score": 0.9}
SEARCH = f"[[hosted file_search {json.dumps({'queries': ['Paris'], 'results': [FOUND]})}]]"
FUNCTION = {"name": "look_up", "parameters": {"type": "object", "properties": {}}}
TOOLS: list[Any] = [
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "file_search", "vector_store_ids": ["vs_1"]},
    {"type": "function", "strict": False, **FUNCTION},
]
OLDER: list[Any] = [
    {"type": "code_interpreter"},
    {"type": "file_search"},
    {"type": "function", "function": FUNCTION},
]
TEXT_OF_FOUND: Any = "step_details.tool_calls[*].file_search.results[*].content"


@pytest.mark.parametrize("include", [[], ["code_interpreter_call.outputs", "file_search_call.results"]])
def test_calls_are_items_of_a_response(client: openai.OpenAI, include: list[Any]) -> None:
    """Expected: before the answer, their outputs only where they are asked for; the answer cites what was found."""
    asked = f"{CODE}{SEARCH}[[latency 0]][[say Old.]]"
    output = client.responses.create(model="gpt-5", input=asked, tools=TOOLS, include=include).output
    assert [item.type for item in output] == ["code_interpreter_call", "file_search_call", "message"]
    items: list[Any] = [item.to_dict() for item in output]
    code, search, message = items
    assert (code["code"], search["queries"]) == ("print(1 + 2)", ["Paris"])
    assert code["outputs"] == ([{"type": "logs", "logs": "3"}] if include else None)
    assert search["results"] == ([{"attributes": {}, **FOUND}] if include else None)
    assert [mark["file_id"] for mark in message["content"][0]["annotations"]] == ["file_1"]


def test_calls_are_events_of_a_stream(client: openai.OpenAI) -> None:
    """Expected: each begins, works and ends, and stands in the last event."""
    with client.responses.create(model="gpt-5", input=f"{CODE}[[say 3]]", tools=TOOLS, stream=True) as stream:
        kinds = [event.type for event in stream]
    works = [f"response.code_interpreter_call.{word}" for word in ("in_progress", "interpreting", "completed")]
    assert [kind for kind in kinds if "code_interpreter" in kind] == works


@pytest.mark.parametrize("tool", [{"type": "code_interpreter"}, {"type": "file_search", "vector_store_ids": []}])
def test_a_tool_that_lacks_what_it_works_on(client: openai.OpenAI, tool: Any) -> None:
    """Expected: refused, as the document says that it is required."""
    with pytest.raises(openai.BadRequestError, match="Missing required parameter"):
        client.responses.with_raw_response.create(model="gpt-5", input="x", extra_body={"tools": [tool]})


def test_what_is_not_offered_is_not_called(client: openai.OpenAI) -> None:
    """Expected: only the answer."""
    asked = f"{CODE}{SEARCH}[[latency 0]][[say Old.]]"
    assert [item.type for item in client.responses.create(model="gpt-5", input=asked).output] == ["message"]


def finished(client: openai.OpenAI, thread: str, run: str) -> Any:
    """Wait until a run does nothing more."""
    until = time.monotonic() + 20
    while (found := client.beta.threads.runs.retrieve(run, thread_id=thread)).status in {"queued", "in_progress"}:
        assert time.monotonic() < until
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_calls_are_steps_of_a_run(client: openai.OpenAI) -> None:
    """Expected: one step each, before the one that asks for functions or writes; the text found only when asked for."""
    made = client.beta.assistants.create(model="gpt-4o", tools=OLDER)
    asked = f"{CODE}[[call look_up]][[then]]{SEARCH}[[latency 0.05]][[say Old.]]"
    thread = client.beta.threads.create(messages=[{"role": "user", "content": asked}]).id
    run = client.beta.threads.runs.create(thread, assistant_id=made.id).id
    waiting = finished(client, thread, run)
    calls = waiting.required_action.submit_tool_outputs.tool_calls
    assert [call.function.name for call in calls] == ["look_up"]
    outputs: Any = [{"tool_call_id": calls[0].id, "output": "found"}]
    client.beta.threads.runs.submit_tool_outputs(run, thread_id=thread, tool_outputs=outputs)
    assert finished(client, thread, run).status == "completed"
    listed = client.beta.threads.runs.steps.list(run, thread_id=thread, order="asc", limit=2)
    kinds = [kind(step) for step in listed]  # over its pages
    assert kinds == ["code_interpreter", "function", "file_search", "message_creation"]
    whole = client.beta.threads.runs.steps.list(run, thread_id=thread, include=[TEXT_OF_FOUND]).data
    texts = [results(steps) for steps in (list(listed), whole)]
    assert texts == [[None], [[{"type": "text", "text": "Paris is old."}]]]
    answer: Any = client.beta.threads.messages.list(thread, run_id=run).data[0].to_dict()
    assert answer["content"][0]["text"]["annotations"][0]["file_citation"] == {"file_id": "file_1"}


def kind(step: Any) -> str:
    """Return what a step did."""
    return str(step.type if step.type == "message_creation" else step.step_details.tool_calls[0].type)


def results(steps: list[Any]) -> list[Any]:
    """Return the contents of what the searches of some steps have found."""
    found = [
        one.file_search.results for step in steps if kind(step) == "file_search" for one in step.step_details.tool_calls
    ]
    return [one.to_dict().get("content") for results in found for one in results]
