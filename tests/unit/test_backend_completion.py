"""Chat completions and stateless Responses put together from their events, as different servers send them."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scripted import step
from worker.assistants.prices import Prices
from worker.backends.base import Done, Ended, Failed, NeedsTools, Step
from worker.backends.foreground.completion import Completion
from worker.backends.foreground.connection import PartialAnswer
from worker.backends.foreground.stateless import Spoken
from worker.backends.transport.sse import Reader
from worker.response import Usage

PRICES = Prices.load()
DONE = b"data: [DONE]\n\n"


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> bytes:
    """Return a chunk as it goes over the wire."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    data = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4o-mini", "choices": choices, **more}
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def call(index: int | None, ident: str | None, name: str | None, arguments: Any, **more: Any) -> dict[str, Any]:
    """Return a piece of a call; what is None is left out."""
    function = {"name": name, "arguments": arguments}
    told = {"index": index, "id": ident, "function": {k: v for k, v in function.items() if v is not None}, **more}
    return {key: value for key, value in told.items() if value is not None}


def calls(*parts: Any) -> bytes:
    return chunk({"tool_calls": list(parts)})


def ended(answer: PartialAnswer, chunks: Iterable[bytes]) -> Ended:
    """Return how an answer ends that comes in these chunks, and what it comes to where they tell no end."""
    reader = Reader(answer.wanted)
    for piece in chunks:
        for event in reader.feed(piece):
            if (end := answer.take(*event)) is not None:
                return end
    return answer.cut("interrupted", "the stream ended")


def completion(*chunks: bytes, one: Step | None = None) -> Ended:
    return ended(Completion(one or step(), [{"role": "user", "content": "hello"}], 400, PRICES), chunks)


def needed(*chunks: bytes, one: Step | None = None) -> list[tuple[str, str, str]]:
    """Return the calls that these chunks ask for."""
    end = completion(*chunks, DONE, one=one)
    assert isinstance(end, NeedsTools), end
    kept = end.items[-1]["tool_calls"]
    assert [one["id"] for one in kept] == [asked.call_id for asked in end.calls]
    return [(asked.call_id, asked.name, asked.arguments) for asked in end.calls]


# ── text ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_is_put_together() -> None:
    """Expected: text, counted tokens with their price, and both messages for the conversation."""
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000}
    end = completion(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Grü"}),
        chunk({"content": "ße"}),
        chunk({}, "stop"),
        chunk(usage=usage),
        DONE,
    )
    asked, said = {"role": "user", "content": "hello"}, {"role": "assistant", "content": "Grüße"}
    price = PRICES.cost("gpt-4o-mini", 1_000_000, 0)
    assert price
    assert end == Done("Grüße", Usage(1_000_000, 0, price), "", items=(asked, said))


def test_tokens_that_nobody_counted_are_guessed() -> None:
    """Expected: one for four bytes of what was sent and of what was written, priced like others."""
    end = completion(chunk({"content": "x" * 41, "reasoning": "y" * 3}, "stop"), DONE)
    assert end.usage == Usage(100, 11, PRICES.cost("gpt-4o-mini", 100, 11))


def test_text_is_told_as_it_comes() -> None:
    """Expected: whoever listens gets each piece, and nothing of the reasoning."""
    heard: list[str] = []
    one = replace(step(), on_text=heard.append)
    completion(chunk({"reasoning_content": "hm"}), chunk({"content": "a"}), chunk({"content": "b"}, "stop"), one=one)
    assert heard == ["a", "b"]


@pytest.mark.parametrize(
    ("chunks", "text", "stopped_by"),
    [
        ([chunk({"content": "Par"}), chunk({}, "length")], "Par", "max_output_tokens"),
        ([chunk({"content": "P"}, "content_filter")], "P", "content_filter"),
        ([chunk({"refusal": "No"}), chunk({"refusal": "."}, "stop")], "No.", None),
        ([chunk({"content": [{"type": "thinking"}, {"type": "text", "text": "parts"}]}, "stop")], "parts", None),
        ([chunk({}, "stop")], "", None),
        ([chunk({"content": "no reason given"}), DONE], "no reason given", None),
        ([calls(call(0, "c", "f", '{"a":')), chunk({"content": "cut"}, "length")], "cut", "max_output_tokens"),
    ],
    ids=["length", "filter", "refusal", "parts", "nothing", "no finish", "cut call"],
)
def test_the_ways_to_end(chunks: list[bytes], text: str, stopped_by: str | None) -> None:
    """Expected: why it was cut is told; a call that was cut is nobody's; [DONE] may be missing behind a reason."""
    end = completion(*chunks)
    assert isinstance(end, Done)
    assert (end.text, end.stopped_by) == (text, stopped_by)
    assert "tool_calls" not in end.items[-1]


@pytest.mark.parametrize(
    ("chunks", "said"),
    [
        ([chunk({"reasoning_content": "hm"}), chunk({}, "length")], "(no answer: max_output_tokens)"),
        ([calls(call(0, "c", "f", '{"a":')), chunk({}, "length")], "(no answer: max_output_tokens)"),
        ([chunk({"reasoning": "hm"}, "content_filter")], "(no answer: content_filter)"),
        ([chunk({"content": ""}, "stop")], "(no answer)"),
    ],
    ids=["cut while reasoning", "cut in a call", "filtered", "nothing"],
)
def test_an_answer_without_words_says_so_in_the_conversation(chunks: list[bytes], said: str) -> None:
    """Expected: neither an empty message, which servers refuse, nor reasoning that led to nothing."""
    end = completion(*chunks)
    assert isinstance(end, Done)
    assert (end.text, end.items[-1]) == ("", {"role": "assistant", "content": said})


def test_reasoning_goes_back_as_it_came() -> None:
    """Expected: each server's own word for it, its details put together under their index."""
    details = [{"type": "reasoning.text", "index": 0, "text": piece, "signature": None} for piece in ("a", "b")]
    end = completion(
        chunk({"reasoning_content": "x", "reasoning_details": details[:1]}),
        chunk({"reasoning_content": "y", "reasoning": "z", "reasoning_details": details[1:]}),
        chunk({"content": "t"}, "stop"),
    )
    assert isinstance(end, Done)
    assert end.items[-1] == {
        "role": "assistant",
        "content": "t",
        "reasoning_content": "xy",
        "reasoning": "z",
        "reasoning_details": [{**details[0], "text": "ab"}],
    }


# ── calls ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_calls_in_pieces() -> None:
    """Expected: OpenAI's form, two at once, their pieces mixed."""
    assert needed(
        calls(call(0, "call_a", "f", "", type="function")),
        calls(call(1, "call_b", "g", "")),
        calls(call(0, None, None, '{"x"'), call(1, None, None, "{")),
        calls(call(0, None, None, ": 1}"), call(1, None, None, "}")),
        chunk({}, "tool_calls"),
    ) == [("call_a", "f", '{"x": 1}'), ("call_b", "g", "{}")]


@pytest.mark.parametrize(
    "parts",
    [
        [call(None, "call_a", "f", '{"x": 1}'), call(None, "call_b", "g", "{}")],
        [call(0, "call_a", "f", '{"x": 1}'), call(0, "call_b", "g", "{}")],
        [call(0, "call_a", "f", {"x": 1}), call(1, "call_b", "g", {})],
        [call(0, "call_a", "f", '{"x"'), call(0, "call_a", "f", ": 1}"), call(1, "call_b", "g", None)],
        [call(7, "call_a", "f", '{"x": 1}'), call(3, "call_b", "g", "")],
    ],
    ids=["no index", "all under 0", "objects", "names repeated", "odd indexes"],
)
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("finish", ["tool_calls", "stop", None])
def test_calls_as_other_servers_send_them(parts: list[Any], together: bool, finish: str | None) -> None:
    """Expected: two calls with their own ids and arguments, whatever reason is given for the end."""
    sent = [calls(*parts)] if together else [calls(part) for part in parts]
    assert needed(*sent, chunk({}, finish)) == [("call_a", "f", '{"x": 1}'), ("call_b", "g", "{}")]


@pytest.mark.parametrize("index", [None, 0])
def test_calls_that_only_one_thing_tells_apart(index: int | None) -> None:
    """Expected: two, by their ids where the first has no arguments, and by whole arguments where there are no ids."""
    by_id = needed(calls(call(index, "call_a", "f", "")), calls(call(index, "call_b", "g", "")))
    assert by_id == [("call_a", "f", "{}"), ("call_b", "g", "{}")]
    whole = needed(calls(call(index, None, "f", "{}")), calls(call(index, None, "f", '{"x": 1}')))
    assert [arguments for _, _, arguments in whole] == ["{}", '{"x": 1}']


@pytest.mark.parametrize("ident", [None, "", "call_old", "a b", "x" * 201])
def test_an_id_that_tells_nothing_is_replaced(ident: str | None) -> None:
    """Expected: calls that cannot be told apart, or are called as an earlier one, get ids of ours, each its own."""
    history = [{"role": "assistant", "content": None, "tool_calls": [{"id": "call_old"}]}]
    found = needed(calls(call(0, ident, "f", "{}"), call(1, ident, "f", "{}")), one=replace(step(), history=history))
    ids = [one for one, _, _ in found]
    assert len({*ids, ident, "call_old"}) >= 3
    assert all(one.startswith("call_") and len(one) == 37 for one in ids)


def test_what_else_a_call_holds_goes_back() -> None:
    """Expected: a signature that the server wants to see again is kept; the index is none of it."""
    signed = {"google": {"thought_signature": "s"}}
    end = completion(calls(call(0, "c", "f", '{"a": 1}', extra_content=signed, type="function")), chunk({}, "stop"))
    assert isinstance(end, NeedsTools)
    kept = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}, "extra_content": signed}
    assert end.items[-1] == {"role": "assistant", "content": None, "tool_calls": [kept]}


@pytest.mark.parametrize("name", ["multi_tool_use.parallel", "größe", "f" * 100])
def test_a_name_that_no_function_can_have_does_not_go_back(name: str) -> None:
    """Expected: the error is about what the model wrote; OpenAI would refuse the thread for ever for it."""
    end = completion(calls(call(0, "c", name, "{}")), chunk({}, "tool_calls"))
    assert isinstance(end, NeedsTools)
    assert end.calls[0].name == name
    assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", end.items[-1]["tool_calls"][0]["function"]["name"])


def test_arguments_that_are_no_json_do_not_go_back() -> None:
    """Expected: the tool's error is about what the model wrote; a server that parses old calls is not given it."""
    end = completion(calls(call(0, "c", "f", "{]")), chunk({}, "tool_calls"))
    assert isinstance(end, NeedsTools)
    assert end.calls[0].arguments == "{]"
    assert end.items[-1]["tool_calls"][0]["function"]["arguments"] == "{}"


# ── what fails ────────────────────────────────────────────────────────────────────────────────────────────────────────


def error(**told: Any) -> bytes:
    return f"data: {json.dumps({'error': told})}\n\n".encode()


@pytest.mark.parametrize(
    ("last", "code", "transient"),
    [
        (b"", "interrupted", True),
        (error(code=502, message="m"), "http_502", True),
        (error(code=429, message="m"), "rate_limit_exceeded", True),
        (error(code=400, message="m", type="BadRequestError"), "http_400", False),
        (error(code="context_length_exceeded", message="m"), "context_length_exceeded", False),
        (error(code="insufficient_quota", message="m"), "insufficient_quota", False),
        (error(code=None, type="server_error"), "server_error", True),
        (error(), "server_error", True),
        (b'data: {"object": "error", "message": "m", "code": 500}\n\n', "http_500", True),
        (b'event: error\ndata: {"message": "m"}\n\n', "server_error", True),
        (b"data: {]\n\n", "bad_answer", True),
        (b"data: 7\n\n", "bad_answer", True),
        (chunk({"content": 7}), "bad_answer", True),
        (calls(call(0, "c", None, "{}")) + DONE, "bad_answer", True),
        (chunk({}, "error"), "server_error", True),
    ],
)
def test_what_fails(last: bytes, code: str, transient: bool) -> None:
    """Expected: the reason by name; what says that the request is at fault does not pass, all else may."""
    end = completion(chunk({"content": "half"}), last if last != chunk({}, "error") else last + DONE)
    assert isinstance(end, Failed)
    assert (end.code, end.transient) == (code, transient)
    assert end.usage.output_tokens


def test_an_end_without_anything_is_none() -> None:
    """Expected: [DONE] alone is no answer."""
    assert isinstance(completion(DONE), Failed)


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"choices": []}', b"[]", b'{"choices": [{"message": 7}]}'])
def test_one_piece_that_is_no_completion(body: bytes) -> None:
    """Expected: a ValueError in one line, from which the create becomes unknown."""
    with pytest.raises(ValueError, match="the provider's answer"):
        Completion(step(), [], 0, PRICES).whole(body)


def test_an_answer_in_one_piece() -> None:
    """Expected: the same as from chunks, null fields of the whole form left out."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "hello",
        "refusal": None,
        "annotations": [],
        "tool_calls": None,
    }
    body = {"id": "chatcmpl-1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": None}
    end = Completion(step(), [], 400, PRICES).whole(json.dumps(body).encode())
    streamed = completion(chunk({"content": "hello"}, "stop"))
    assert isinstance(streamed, Done)
    assert end == replace(streamed, items=({"role": "assistant", "content": "hello"},))


# ── any cutting ───────────────────────────────────────────────────────────────────────────────────────────────────────


def event(name: str, **data: Any) -> bytes:
    return f"event: response.{name}\r\ndata: {json.dumps(data, ensure_ascii=False)}\r\n\r\n".encode()


ITEM = {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "Grüße 🎈"}]}
CALL = {"type": "function_call", "id": "fc", "call_id": "call_1", "name": "f", "arguments": "{}"}
REASONING = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "e"}
RESPONSE = {"id": "resp_1", "status": "completed", "model": "gpt-4o-mini"}
SPOKEN = [
    event("created", response={**RESPONSE, "status": "in_progress"}),
    event("output_item.added", item={**ITEM, "content": []}),
    event("output_text.delta", delta="Grüße "),
    b": keep-alive\r\n\r\n",
    event("output_text.delta", delta="🎈"),
    event("output_item.done", item=ITEM),
    event("completed", response={**RESPONSE, "output": [REASONING, ITEM]}),
]
WRITTEN = [
    b": OPENROUTER PROCESSING\n\n",
    chunk({"role": "assistant", "content": "Grüße "}),
    chunk({"content": "🎈"}).replace(b"\n", b"\r\n"),
    calls(call(0, "call_1", "f", '{"größe"')),
    calls(call(0, None, None, ": 1}")),
    chunk({}, "tool_calls"),
    chunk(usage={"prompt_tokens": 1, "completion_tokens": 2}),
    DONE,
]


def spoken(one: Step | None = None) -> Spoken:
    return Spoken(one or step(), [], 400, PRICES)


@pytest.mark.parametrize(
    ("stream", "make"),
    [(b"".join(WRITTEN), lambda one: Completion(one, [], 400, PRICES)), (b"".join(SPOKEN), spoken)],
    ids=["chat", "responses"],
)
@given(data=st.data())
def test_no_cutting_changes_an_answer(
    stream: bytes, make: Callable[[Step], PartialAnswer], data: st.DataObject
) -> None:
    """Expected: one end and one text whether it comes at once, byte by byte or anyhow, inside a character too."""

    def told(chunks: Iterable[bytes]) -> tuple[Ended, str]:
        heard: list[str] = []
        return ended(make(replace(step(), on_text=heard.append)), chunks), "".join(heard)

    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = told([stream])
    assert not isinstance(whole[0], Failed)
    assert whole[1] == "Grüße 🎈"
    assert told(chunks) == whole == told(stream[at : at + 1] for at in range(len(stream)))


# ── Responses without state ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_response_is_kept_as_it_came() -> None:
    """Expected: reasoning too, unchanged; where the last event leaves the output out, from the items before it."""
    end = ended(spoken(), SPOKEN)
    assert isinstance(end, Done)
    assert (end.text, end.items) == ("Grüße 🎈", (REASONING, ITEM))
    short = ended(spoken(), [*SPOKEN[:-1], event("completed", response={**RESPONSE, "output": []})])
    assert isinstance(short, Done)
    assert (short.text, short.items) == ("Grüße 🎈", (ITEM,))


def test_calls_of_a_response() -> None:
    """Expected: an id that was there before is replaced, in the call and in the item alike."""
    last = event("completed", response={**RESPONSE, "output": [REASONING, CALL, {**CALL, "call_id": None}]})
    end = ended(spoken(replace(step(), history=[CALL])), [last])
    assert isinstance(end, NeedsTools)
    assert [item.get("call_id") for item in end.items] == [None, *(one.call_id for one in end.calls)]
    assert len({"call_1", *(one.call_id for one in end.calls)}) == 3


def test_calls_that_a_server_could_not_take_back() -> None:
    """Expected: as with chat, what the model wrote is called, and what any server takes is kept."""
    odd = {**CALL, "name": "multi_tool_use.parallel", "arguments": "{]"}
    end = ended(spoken(), [event("completed", response={**RESPONSE, "output": [odd]})])
    assert isinstance(end, NeedsTools)
    assert (end.calls[0].name, end.calls[0].arguments) == ("multi_tool_use.parallel", "{]")
    assert end.items == ({**CALL, "name": "multi_tool_use_parallel", "arguments": "{}"},)


def test_a_response_that_was_cut_leaves_no_call() -> None:
    """Expected: no call without its output, and no reasoning that led to nothing."""
    cut = {**RESPONSE, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    end = ended(spoken(), [event("incomplete", response={**cut, "output": [REASONING, ITEM, REASONING, CALL]})])
    assert isinstance(end, Done)
    assert (end.stopped_by, end.items) == ("max_output_tokens", (REASONING, ITEM))


@pytest.mark.parametrize("output", [[], [REASONING], [REASONING, CALL]])
def test_a_response_without_words_says_so_in_the_conversation(output: list[dict[str, Any]]) -> None:
    """Expected: as with chat, a message, so that two questions never follow each other; the run has no text."""
    cut = {**RESPONSE, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    end = ended(spoken(), [event("incomplete", response={**cut, "output": output})])
    assert isinstance(end, Done)
    content = [{"type": "output_text", "text": "(no answer: max_output_tokens)"}]
    assert (end.text, end.items) == ("", ({"type": "message", "role": "assistant", "content": content},))


@pytest.mark.parametrize(
    ("last", "code", "transient"),
    [
        (b"", "interrupted", True),
        (
            event("failed", response={**RESPONSE, "status": "failed", "error": {"code": "server_error"}}),
            "server_error",
            True,
        ),
        (
            event("failed", response={**RESPONSE, "status": "failed", "error": {"code": "invalid_prompt"}}),
            "invalid_prompt",
            False,
        ),
        (b'event: error\ndata: {"error": {"code": 503, "message": "m"}}\n\n', "http_503", True),
        (event("completed", response=7), "bad_answer", True),
        (event("completed", response={**RESPONSE, "output": 7}), "bad_answer", True),
        (event("completed", response={**RESPONSE, "status": "in_progress"}), "bad_answer", True),
        (event("completed"), "bad_answer", True),
    ],
)
def test_a_response_that_fails(last: bytes, code: str, transient: bool) -> None:
    """Expected: the reason by name, and whether it may pass."""
    end = ended(spoken(), [*SPOKEN[:4], last])
    assert isinstance(end, Failed)
    assert (end.code, end.transient) == (code, transient)
