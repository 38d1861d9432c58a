"""What the foreground backends send, before OpenAI's published document."""

import asyncio
import json
from typing import Any

import pytest

from tests.conformance.test_responses_requests import ALL, ANSWERS, LOADED, SCHEMA
from tests.foreground import DIALECTS, foreground, piece, taken
from tests.recordings import published
from tests.scripted import Request, answer, saying, scripted, step
from worker.assistants.prices import Prices
from worker.backends.base import Step
from worker.backends.foreground.chat import Chat
from worker.backends.foreground.stateless import Stateless
from worker.backends.places import FOR_A_MODEL, PROTOCOLS

PATHS = {"chat": "/chat/completions", "responses-stateless": "/responses"}
NAMES = {"chat": "CreateChatCompletionRequest", "responses-stateless": "CreateResponse"}
OURS = {key: ALL[key] for key in ALL if key != "truncation"}
CHAT = [
    {"role": "user", "content": "before"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": one.call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for one in ANSWERS
        ],
    },
]
RESPONSES = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "before"}]},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "e"},
    *({"type": "function_call", "call_id": one.call_id, "name": "f", "arguments": "{}"} for one in ANSWERS),
]
HISTORY = {"chat": CHAT, "responses-stateless": RESPONSES}


def steps(dialect: str) -> dict[str, Step]:
    """Return what is tried of each dialect."""
    going_on = step(OURS, text="", tools=LOADED, answers=ANSWERS)
    return {
        "text": step(),
        "unicode": step(text="Grüße \U0001f600 \x7f \u2028"),
        "every setting": step(OURS, tools=LOADED),
        "settings without tools": step(OURS),
        "outputs": Step(**{**fields(going_on), "history": HISTORY[dialect]}),
        "outputs before a message": Step(**{**fields(step(answers=ANSWERS)), "history": HISTORY[dialect]}),
        **{f"only {key}": step({key: OURS[key]}) for key in OURS},
    }


def fields(one: Step) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Step.__dataclass_fields__}


def sent(dialect: str, *wanted: Step) -> list[Request]:
    """Return the requests that these steps send."""

    async def story() -> list[Request]:
        async with scripted(saying(answer(200, piece(dialect)))) as server, foreground(dialect, server.url) as backend:
            for one in wanted:
                following = (await taken(backend, one)).following
                assert following
                following.close()
            return server.requests

    return asyncio.run(story())


@pytest.fixture(scope="module", name="document")
def published_document() -> Any:
    return published()


@pytest.mark.parametrize(("dialect", "name"), [(dialect, name) for dialect in DIALECTS for name in steps(dialect)])
def test_every_request_conforms(dialect: str, name: str, document: Any) -> None:
    """OpenAI's published document accepts what is sent, and knows every property of it."""
    (request,) = sent(dialect, steps(dialect)[name])
    assert (request.method, request.path) == ("POST", f"/v1{PATHS[dialect]}")
    assert document.judge_request("POST", PATHS[dialect], "application/json", request.body) == []
    body = json.loads(request.body)
    # `max_tokens` is in the document, deprecated; OpenAI itself is sent the newer name.
    assert document.unknown(document.named(NAMES[dialect]), body) == []
    assert body["stream"] is True
    assert not {"conversation", "background", "truncation", "previous_response_id"} & set(body)


def test_every_setting_for_the_model_reaches_a_completion() -> None:
    """Expected: each with its value, in the protocol's words; the system's message first."""
    (request,) = sent("chat", steps("chat")["every setting"])
    body = json.loads(request.body)
    as_they_are = {
        "model",
        "temperature",
        "top_p",
        "reasoning_effort",
        "service_tier",
        "tool_choice",
        "parallel_tool_calls",
    }
    assert {key: body[key] for key in as_they_are} == {key: OURS[key] for key in as_they_are}
    assert body["max_tokens"] == OURS["max_output_tokens"]
    assert body["messages"] == [
        {"role": "system", "content": OURS["instructions"]},
        {"role": "user", "content": "hello"},
    ]
    described = {"name": "answer", "schema": SCHEMA, "description": "d", "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": described}
    assert [tool["function"]["name"] for tool in body["tools"]] == [tool.name for tool in LOADED]
    assert body["stream_options"] == {"include_usage": True}
    told = as_they_are | {"max_output_tokens", "instructions", "response_format", "truncation", "context_window"}
    assert told == PROTOCOLS["chat"].settings, "a key that this test does not know would be sent unseen"
    assert not (FOR_A_MODEL - PROTOCOLS["chat"].settings) & set(body)


def test_what_responses_without_state_adds() -> None:
    """Expected: nothing is stored; reasoning comes encrypted where the assistant says that its model reasons."""
    reasoning, plain, none = sent(
        "responses-stateless", steps("responses-stateless")["every setting"], step(), step({"reasoning_effort": "none"})
    )
    body = json.loads(reasoning.body)
    assert (body["store"], body["include"], body["reasoning"]) == (
        False,
        ["reasoning.encrypted_content"],
        {"effort": "low"},
    )
    assert body["text"]["format"]["schema"] == SCHEMA
    assert all("include" not in json.loads(one.body) for one in (plain, none))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_whole_conversation_goes_out(dialect: str) -> None:
    """Expected: what we kept, unchanged; then all outputs in order, then the message."""
    (request,) = sent(dialect, steps(dialect)["outputs before a message"])
    body = json.loads(request.body)
    items = body.get("messages") or body["input"]
    assert items[: -len(ANSWERS) - 1] == HISTORY[dialect]
    assert [item.get("tool_call_id") or item.get("call_id") for item in items[-3:-1]] == ["call_1", "call_2"]
    assert [item.get("content") or item.get("output") for item in items[-3:-1]] == [ANSWERS[0].output, "ü?\ufffd"]
    assert items[-1]["role"] == "user"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_only_what_is_sent_is_cut(dialect: str) -> None:
    """Expected: the oldest exchange stays out of the request, and stays where it is kept."""
    history = HISTORY[dialect][:1] * 4
    one = Step(**{**fields(step({"truncation": {"last_messages": 2}})), "history": history})
    (request,) = sent(dialect, one)
    body = json.loads(request.body)
    assert len(body.get("messages") or body["input"]) == 2
    assert len(history) == 4


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_request_is_named_for_support(dialect: str) -> None:
    """Expected: run, attempt and step in ASCII, and never the same name twice."""
    odd = Step(**{**fields(step()), "run_id": "ü\r\nX: y" * 100})
    names = [request.headers["x-client-request-id"] for request in sent(dialect, step(), step(), odd)]
    assert [name.rsplit("/", 1)[0] for name in names[:2]] == ["run-1/1/0"] * 2
    assert len(set(names)) == 3
    assert all(name.isascii() and len(name) <= 512 for name in names)


@pytest.mark.parametrize(
    ("host", "longest"),
    [
        ("api.openai.com", "max_completion_tokens"),
        ("eu.api.openai.com", "max_completion_tokens"),
        ("name.openai.azure.com", "max_completion_tokens"),
        ("127.0.0.1", "max_tokens"),
        ("api.openai.com.example.org", "max_tokens"),
        ("notapi.openai.com", "max_tokens"),
    ],
)
def test_the_longest_answer_is_named_as_the_server_knows_it(host: str, longest: str) -> None:
    """Expected: OpenAI's reasoning models refuse the one name, Ollama reads no other."""
    body = Chat(host, Prices({})).body(step({"max_output_tokens": 99}), [])
    assert {key: value for key, value in body.items() if key.startswith("max")} == {longest: 99}
    assert Stateless(Prices({})).body(step({"max_output_tokens": 99}), [])["max_output_tokens"] == 99


@pytest.mark.parametrize("parts", [2, 0])
def test_text_of_several_parts_is_one_string(parts: int) -> None:
    """Expected: Ollama would make a message of each part."""
    said = Chat("h", Prices({})).said({"role": "user", "content": [{"type": "text", "text": "a"}] * parts})
    assert list(said) == ([{"role": "user", "content": "a\n\na"}] if parts else [])
