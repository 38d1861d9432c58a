"""What the Responses backend makes of bodies with gaps, odd types and characters that nothing can hold."""

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.scripted import KEY, Request, answer, ask, completed, look, refused, saying, step, transience
from worker.backends.base import Done, Failed, NeedsTools
from worker.response import HostedCall, Usage


def call_item(**changes: Any) -> dict[str, Any]:
    return {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}", **changes}


def message_item(*parts: Any) -> dict[str, Any]:
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": list(parts)}


@pytest.mark.parametrize(
    "changes",
    [
        {"status": None},
        {"status": 7},
        {"output": 7},
        {"output": {"type": "message"}},
        {"output": [None]},
        {"output": ["text"]},
        {"output": [call_item(arguments={"a": 1})]},
        {"output": [call_item(arguments=None)]},
        {"output": [call_item(call_id=None)]},
        {"output": [call_item(call_id="x" * 201)]},
        {"output": [call_item(name=None)]},
        {"output": [call_item(), call_item(id="fc_2")]},
        {"output": [{"type": "message", "content": "text"}]},
        {"output": [message_item("text")]},
        {"output": [message_item({"type": "output_text", "text": 7})]},
    ],
)
def test_a_body_that_cannot_be_understood(changes: dict[str, Any]) -> None:
    """It is looked at again: no call and no text is guessed or dropped."""
    error = refused(completed(**changes), look)
    assert (transience(error), error.code) == ("transient", "bad_answer")


@pytest.mark.parametrize(
    "changes",
    [
        {"output": None},
        {"output": [{"type": "of_tomorrow", "content": 7}]},
        {"output": [{"id": 7}]},
        {"output": [{"type": ["message"]}]},
        {"output": [{"type": "message"}]},
        {"output": [{"type": "message", "content": None}]},
        {"output": [message_item()]},
        {"output": [message_item({"type": "output_text"}, {"type": "output_text", "text": None})]},
        {"output": [message_item({"type": "of_tomorrow", "text": "not for the user"})]},
        {"output": [message_item({"type": "refusal"})]},
        {"output": [{"type": "reasoning", "id": "rs_1", "summary": [], "content": None}]},
        {"usage": None},
        {"usage": {}},
        {"usage": 7},
        {"usage": {"input_tokens": None, "output_tokens": 1}},
        {"usage": {"input_tokens": -1, "output_tokens": 1}},
        {"usage": {"input_tokens": 10**30, "output_tokens": 1}},
        {"model": None},
        {"error": "no"},
        {"incomplete_details": 7},
    ],
)
def test_a_body_with_gaps(changes: dict[str, Any]) -> None:
    """What a run can end without does not keep it from ending; what was not said is not made up."""
    done = ask(completed(**changes), look)
    assert isinstance(done, Done)
    assert (done.text, done.usage, done.stopped_by) == ("", Usage(), None)
    assert done.last_item in {None, "msg_1", "rs_1"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": "failed"}, ("failed_at_provider", False)),
        ({"status": "failed", "error": {"code": None}}, ("failed_at_provider", False)),
        ({"status": "failed", "error": {"code": "server_error", "message": "m"}}, ("server_error", True)),
        ({"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "m"}}, ("rate_limit_exceeded", True)),
        ({"status": "failed", "error": {"code": "invalid_prompt", "message": "m"}}, ("invalid_prompt", False)),
        ({"status": "failed", "output": None, "error": {"code": "of_tomorrow"}}, ("of_tomorrow", False)),
        ({"status": "cancelled"}, ("cancelled_at_provider", False)),
        ({"status": "s" * 500}, ("s" * 80 + "_at_provider", False)),
        ({"status": "failed", "error": {"code": "c" * 500, "message": "\x00"}}, ("c" * 100, False)),
    ],
)
def test_a_response_that_failed(changes: dict[str, Any], expected: tuple[str, bool]) -> None:
    """The provider's code and message are kept; a status that nobody knows is a failure, too."""
    failed = ask(completed(usage={"input_tokens": 3, "output_tokens": 0}, **changes), look)
    assert isinstance(failed, Failed)
    assert ((failed.code, failed.transient), failed.usage.input_tokens) == (expected, 3)
    assert "\x00" not in failed.message


def test_a_failure_that_repeats_the_key() -> None:
    """Expected: a gateway that quotes the key of the request in its server's complaint gets it into no row."""
    error = {"code": "server_error", "message": f"Incorrect API key provided: {KEY}."}
    failed = ask(completed(status="failed", error=error), look)
    assert failed.message == "Incorrect API key provided: [key]."
    for cut in (8, len(KEY) - 1):
        error["message"] = f"{'x' * (2000 - cut)}{KEY}"
        assert ask(completed(status="failed", error=error), look).message == f"{'x' * (2000 - cut)}[key]"


def code(**changes: Any) -> dict[str, Any]:
    return {"type": "code_interpreter_call", "id": "ci_1", "status": "completed", "code": "1", "outputs": [], **changes}


def search(**changes: Any) -> dict[str, Any]:
    return {
        "type": "file_search_call",
        "id": "fs_1",
        "status": "completed",
        "queries": ["ü"],
        "results": None,
        **changes,
    }


def test_what_the_provider_did_itself() -> None:
    """It is told beside what the model asks of us, answers, or fails with, and is never asked of us."""
    hosted = (
        HostedCall("ci_1", "code_interpreter", '{"code": "1"}', "[]"),
        HostedCall("fs_1", "file_search", '{"queries": ["ü"]}', None),
    )
    asked = ask(completed(output=[code(), search(), call_item()]), look)
    assert isinstance(asked, NeedsTools)
    assert (asked.hosted, [call.call_id for call in asked.calls]) == (hosted, ["call_1"])
    error = {"code": "server_error", "message": "m"}
    for ended in ({"status": "completed"}, {"status": "incomplete"}, {"status": "failed", "error": error}):
        assert ask(completed(output=[code(), search()], **ended), look).hosted == hosted


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (code(status="failed"), ('{"code": "1"}', "[]", "failed")),
        (search(status="incomplete"), ('{"queries": ["ü"]}', None, "incomplete")),
        (code(status="interpreting"), ('{"code": "1"}', "[]", None)),
        (code(code=None, outputs=None, status=None), ("{}", None, None)),
        (search(queries=7, results="x"), ("{}", None, None)),
        (
            code(outputs=[{"type": "image", "url": "u\x00"}]),
            ('{"code": "1"}', '[{"type": "image", "url": "u\ufffd"}]', None),
        ),
    ],
)
def test_what_the_provider_says_of_its_own_calls(
    item: dict[str, Any], expected: tuple[str, str | None, str | None]
) -> None:
    """What was not said, or cannot be read, is not made up; its word for what did not end well is the error."""
    (found,) = ask(completed(output=[item]), look).hosted
    assert (found.arguments, found.output, found.error) == expected


def test_a_call_of_the_providers_without_an_id() -> None:
    """It could not be kept once: it is left out, and the answer is not lost for it."""
    assert ask(completed(output=[code(id=None), search(id=7)]), look).hosted == ()


def test_citations_are_kept_with_the_text() -> None:
    """An answer that cites files is kept in parts; one that does not is its text alone."""
    mark = {"type": "container_file_citation", "file_id": "cfile_1", "container_id": "cntr_1"}
    cites = {"type": "output_text", "text": "a", "annotations": [mark]}
    plain = {"type": "output_text", "text": "b", "annotations": []}
    made = {"type": "text", "text": "a", "annotations": [mark]}
    assert ask(completed(output=[message_item(cites, plain)]), look).parts == (made, {"type": "text", "text": "b"})
    assert ask(completed(output=[message_item(plain, {**plain, "annotations": 7})]), look).parts == ()


def test_an_answer_cut_short() -> None:
    """Its text is kept with the reason; calls that came with it are not carried out, so its end is to be looked at."""
    text = message_item({"type": "output_text", "text": "Par"}, {"type": "output_text", "text": "tly"})
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    done = ask(completed(output=[text, call_item()], **cut), look)
    assert (done.text, done.stopped_by, done.last_item) == ("Partly", "max_output_tokens", None)
    assert ask(completed(status="incomplete"), look).stopped_by == "unknown_reason"


def test_what_no_database_takes_is_replaced() -> None:
    """NUL and lone surrogates in text, name and arguments give way; all other characters stay."""
    dirty = {"type": "output_text", "text": "a\x00b \ud83d c \U0001f600 ü"}
    done = ask(completed(output=[message_item(dirty)]), look)
    assert done.text == "a\ufffdb ? c \U0001f600 ü"
    asked = ask(completed(output=[call_item(name="f\x00", arguments='{"a": "\udfff\x00"}')]), look)
    assert isinstance(asked, NeedsTools)
    assert (asked.calls[0].name, asked.calls[0].arguments) == ("f\ufffd", '{"a": "?\ufffd"}')


def test_a_refusal_is_the_answer_where_there_is_no_other() -> None:
    """The model's words for refusing are kept as the text; beside an answer they are left out."""
    refusal = {"type": "refusal", "refusal": "I cannot do that."}
    alone = ask(completed(output=[message_item(refusal)]), look)
    beside = ask(completed(output=[message_item(refusal, {"type": "output_text", "text": "Done."})]), look)
    assert isinstance(alone, Done)
    assert isinstance(beside, Done)
    assert (alone.text, beside.text) == ("I cannot do that.", "Done.")


def test_a_request_id_that_is_no_text_is_kept_as_some() -> None:
    """Expected: a step that is paid for is kept, whatever bytes a proxy has put into the headers of its answer."""
    said = answer(200, {"id": "resp_1"}, {"X-Request-Id": "req_\xff"})
    created = ask(saying(said), lambda backend: backend.create(step()))
    assert (created.id, created.request_id) == ("resp_1", "req_?")


def test_a_list_of_items_that_does_not_end() -> None:
    """Expected: an answer that cannot be read, and no memory full of pages."""
    numbers = itertools.count()

    async def endless(_: Request) -> AsyncIterator[bytes]:
        yield answer(200, {"data": [], "has_more": True, "last_id": f"msg_{next(numbers)}"})

    error = refused(endless, lambda backend: backend.adopt(step(), ""))
    assert (error.code, transience(error)) == ("bad_answer", "transient")


@pytest.mark.parametrize(
    "odd",
    [
        {"type": ["message"]},
        {"type": "message", "role": ["user"]},
        {"type": "function_call_output", "call_id": {"x": 1}},
        {"type": "function_call", "call_id": ["x"]},
    ],
)
def test_a_conversation_with_odd_items(odd: dict[str, Any]) -> None:
    """Expected: an answer that cannot be read, which may pass: no bug of ours, and no call to answer."""
    there = saying(answer(200, {"data": [odd, message_item()], "has_more": False}))
    assert transience(refused(there, lambda backend: backend.adopt(step(), ""))) == "transient"
    assert transience(refused(there, lambda backend: backend.tail("conv_1"))) == "transient"
