"""Chat completions of the simulator, driven by the real SDK, every exchange judged by OpenAI's published document."""

import json
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionMessage

from tests.servers import wait_until

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": {}}, "strict": True},
    }
    for name in ("alpha", "beta")
]
CALL = {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
BOTH = '[[call alpha {}]] [[call beta {"n": 1}]] [[then]] [[say both done]]'


def ask(client: openai.OpenAI, *messages: Any, step: str = "", **options: Any) -> ChatCompletion:
    """Create a completion; texts are messages of the user, `step` is RUN_ID/ATTEMPT/STEP."""
    given: Any = [{"role": "user", "content": one} if isinstance(one, str) else one for one in messages]
    headers = {"X-Client-Request-Id": f"{step}/once"} if step else {}
    made: ChatCompletion = client.chat.completions.create(
        model="gpt-4o", messages=given, extra_headers=headers, **options
    )
    return made


def said(message: ChatCompletionMessage) -> Any:
    """Return an answer as the message that the next request holds."""
    return message.model_dump(exclude_none=True, exclude={"annotations"})


def answers(message: ChatCompletionMessage, output: str = "1") -> list[Any]:
    """Return a tool message for each call of an answer."""
    return [{"role": "tool", "tool_call_id": one.id, "content": output} for one in message.tool_calls or []]


def chunks(client: openai.OpenAI, text: str, **options: Any) -> list[Any]:
    """Create a completion as a stream and return all its chunks."""
    messages: Any = [{"role": "user", "content": text}]
    with client.chat.completions.create(model="gpt-4o", messages=messages, stream=True, **options) as stream:
        return list(stream)


def test_a_run_with_tools(client: openai.OpenAI, control: httpx2.Client) -> None:
    """Two calls at once, their outputs in the next request, the answer; the header tells the run and its steps."""
    system = {"role": "system", "content": "Be brief."}
    first = ask(client, system, BOTH, step="r1/1/1", tools=TOOLS)
    asked = first.choices[0]
    assert (asked.finish_reason, asked.message.content) == ("tool_calls", None)
    calls: Any = asked.message.tool_calls
    assert [(one.function.name, one.function.arguments) for one in calls] == [("alpha", "{}"), ("beta", '{"n": 1}')]
    second = ask(client, system, BOTH, said(asked.message), *answers(asked.message), step="r1/1/2", tools=TOOLS)
    assert (second.choices[0].finish_reason, second.choices[0].message.content) == ("stop", "both done")
    assert second.usage
    assert second.usage.total_tokens == second.usage.prompt_tokens + second.usage.completion_tokens
    run = control.get("/_simulator/runs/r1").json()
    assert (run["provider_runs"], run["requests"], run["steps"]) == (2, 2, {"1/1": 1, "1/2": 1})
    assert run["ended_at"]


def test_the_model_answers_here_as_it_does_on_responses(client: openai.OpenAI) -> None:
    """The same request, document and tools lead to the same text and the same call."""
    asked = "What is the total?\n\nDocument:\nSupplier: ACME\nTotal: 12.50 EUR\n"
    here = ask(client, {"role": "developer", "content": "Be exact."}, asked).choices[0].message.content
    there = client.responses.create(model="gpt-4o", instructions="Be exact.", input=asked).output_text
    assert here == there
    assert "12.50" in there


def test_a_format_a_choice_and_a_limit(client: openai.OpenAI) -> None:
    """JSON by its schema, a call that must be made, one call at a time, a text that is cut off at its limit."""
    schema = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "sum", "schema": schema, "strict": True}}
    answer = ask(client, "Extract the total.\n\nDocument:\nTotal: 7", response_format=wanted)
    assert "total" in json.loads(answer.choices[0].message.content or "")
    forced = ask(client, "x", tools=TOOLS, tool_choice={"type": "function", "function": {"name": "beta"}})
    calls: Any = forced.choices[0].message.tool_calls
    assert [one.function.name for one in calls] == ["beta"]
    single = ask(client, BOTH, tools=TOOLS, parallel_tool_calls=False).choices[0].message
    assert len(single.tool_calls or []) == 1
    for name in ("max_completion_tokens", "max_tokens"):
        cut = ask(client, "[[say " + "word " * 100 + "]]", **dict[str, Any]({name: 10}))
        assert (cut.choices[0].finish_reason, len(cut.choices[0].message.content or "")) == ("length", 40)
        assert cut.usage
        assert cut.usage.completion_tokens == 10


def test_a_stream_of_text(client: openai.OpenAI) -> None:
    """The role first, then pieces of the text, the reason, and the usage in a chunk without choices if asked for."""
    seen = chunks(client, "[[say one two three]]", stream_options={"include_usage": True})
    assert seen[0].choices[0].delta.role == "assistant"
    assert "".join(one.choices[0].delta.content or "" for one in seen[:-1]) == "one two three"
    assert [one.choices[0].finish_reason for one in seen[:-1]] == [None] * (len(seen) - 2) + ["stop"]
    assert (seen[-1].choices, seen[-1].usage.completion_tokens) == ([], 4)
    assert all(one.usage is None for one in seen[:-1])
    assert len({one.id for one in seen}) == 1
    assert chunks(client, "[[say x]]")[-1].choices[0].finish_reason == "stop"


def test_a_stream_of_calls(client: openai.OpenAI) -> None:
    """Each call begins with its index, id and name; its arguments come in pieces."""
    seen = chunks(client, BOTH, tools=TOOLS)
    pieces = [piece for one in seen for piece in one.choices[0].delta.tool_calls or []]
    begun = [piece for piece in pieces if piece.id]
    assert [(one.index, one.function.name) for one in begun] == [(0, "alpha"), (1, "beta")]
    joined = ["".join(one.function.arguments for one in pieces if one.index == at) for at in (0, 1)]
    assert joined == ["{}", '{"n": 1}']
    assert seen[-1].choices[0].finish_reason == "tool_calls"
    assert len(pieces) > len(begun) + 1


def test_a_stream_always_holds_its_whole_text(client: openai.OpenAI, control: httpx2.Client) -> None:
    """A simulator set to no deltas sends one: no event tells the text once more at the end."""
    control.post("/_simulator/settings", json={"stream_deltas": 0})
    seen = chunks(client, "[[say one two]]")
    control.post("/_simulator/settings", json={"stream_deltas": 20})
    assert [one.choices[0].delta.content for one in seen] == ["", "one two", None]


@pytest.mark.parametrize(
    ("messages", "param", "words"),
    [
        (
            [{"role": "assistant", "tool_calls": [CALL]}],
            "messages",
            "each 'tool_call_id'. The following tool_call_ids did not have response messages: call_a",
        ),
        (
            [{"role": "user", "content": "x"}, {"role": "tool", "content": "1"}],
            "messages.[1].role",
            "a preceeding mess",
        ),
        ([{"role": "robot", "content": "x"}], "messages[0].role", "Invalid value: 'robot'. Supported values are: 'sys"),
        ([{"role": "user", "content": None}], "messages.[0].content", "expected a string, got null"),
        ([], "messages", "empty array"),
    ],
)
def test_messages_that_do_not_fit_are_refused(client: openai.OpenAI, messages: Any, param: str, words: str) -> None:
    """With 400, in OpenAI's words, naming the message."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="gpt-4o", messages=messages)
    assert refused.value.param == param
    assert words in str(refused.value)


def test_half_of_the_outputs_is_not_enough(client: openai.OpenAI) -> None:
    """Each call needs its own; an output for a call that was not made is refused as well."""
    message = ask(client, BOTH, tools=TOOLS).choices[0].message
    half, other = answers(message)
    with pytest.raises(openai.BadRequestError, match=other["tool_call_id"]) as refused:
        ask(client, BOTH, said(message), half, "go on", tools=TOOLS)
    assert refused.value.param == "messages.[3].role"
    strange = {**other, "tool_call_id": "call_x"}
    with pytest.raises(openai.BadRequestError, match="'tool_call_id' of 'call_x' not found"):
        ask(client, BOTH, said(message), half, other, strange, tools=TOOLS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metadata": {"a": "b"}}, "The 'metadata' parameter is only allowed when 'store' is enabled"),
        ({"stream_options": {"include_usage": True}}, "only allowed when 'stream' is enabled"),
        ({"tool_choice": "auto"}, "only allowed when 'tools' are specified"),
        ({"parallel_tool_calls": True}, "only allowed when 'tools' are specified"),
        ({"tools": []}, "empty array"),
        ({"n": 2}, "must be 1"),
        ({"extra_body": {"input": "x"}}, "Unrecognized request argument supplied: input"),
        ({"temperature": 3}, "decimal above maximum value"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(client: openai.OpenAI, options: Any, words: str) -> None:
    """With 400 that names them."""
    with pytest.raises(openai.BadRequestError, match=words):
        ask(client, "x", **options)


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    """404, as on api.openai.com."""
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="llama3.2", messages=[{"role": "user", "content": "x"}])
    assert missing.value.code == "model_not_found"


def test_metadata_is_kept_with_what_is_stored(client: openai.OpenAI) -> None:
    """The completion gives it back; nothing else of it can be had."""
    made = ask(client, "x", store=True, metadata={"a": "b"})
    assert made.model_dump()["metadata"] == {"simulated": "true", "a": "b"}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("rate_limit_exceeded", openai.RateLimitError),
        ("server_error", openai.InternalServerError),
        ("context_length_exceeded", openai.BadRequestError),
    ],
)
def test_a_failure_is_an_error(client: openai.OpenAI, code: str, error: type[openai.APIStatusError]) -> None:
    """A completion has no status: its request fails; with x1 only the first request of the run."""
    with pytest.raises(error, match="Not now") as failed:
        ask(client, f"[[fail {code} Not now x1]] [[say better]]", step=f"{code}/1/1")
    assert failed.value.code == code
    again = ask(client, f"[[fail {code} Not now x1]] [[say better]]", step=f"{code}/2/1")
    assert again.choices[0].message.content == "better"


def test_a_header_that_openai_would_refuse(client: openai.OpenAI) -> None:
    """400 beyond 512 characters; a header of any other form names no run and is let through."""
    with pytest.raises(openai.BadRequestError, match="512"):
        ask(client, "x", step="r/1/" + "1" * 512)
    assert ask(client, "x", step="0f8c").choices


def test_a_client_that_leaves_stops_its_completion(client: openai.OpenAI, control: httpx2.Client) -> None:
    """In the foreground and as a stream: the run has ended soon after, and its calls' outputs may come again."""
    with openai.OpenAI(api_key="test", base_url=str(control.base_url) + "/v1", max_retries=0) as plain:
        messages: Any = [{"role": "user", "content": "[[hang]]"}]
        with pytest.raises(openai.APITimeoutError):
            ask(plain, "[[hang]]", step="left/1/1", timeout=0.3)
        stream = plain.chat.completions.create(
            model="gpt-4o", messages=messages, stream=True, extra_headers={"X-Client-Request-Id": "closed/1/1/x"}
        )
        stream.close()
    for run in ("left", "closed"):
        wait_until(lambda: control.get(f"/_simulator/runs/{run}").json()["ended_at"], "the run to end")  # noqa: B023
    assert control.get("/_simulator/counters?by_run=0").json()["streams_open"] == 0
    assert client.models.list().data
