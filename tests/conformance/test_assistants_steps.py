"""What the Assistants backend reads of a run's steps, from a server that pages, refuses and lies."""

import json
from typing import Any

import pytest
import structlog

from tests.assisting import RUN, asked, page, routes
from tests.conformance.test_assistants_backend import AT, ONE, USED, message, no, text, waiting
from tests.scripted import Request, answer
from worker.backends.base import Done, Failed, NeedsTools
from worker.errors import ProviderError
from worker.response import HostedCall

STEPS = "GET /threads/thread_1/runs/run_1/steps"
MESSAGES = "GET /threads/thread_1/messages"
BOTH = [{"type": "code_interpreter"}, {"type": "file_search"}]
ENDED = {**RUN, "status": "completed", "usage": USED, "tools": BOTH}
FOUND = [{"file_id": "file_1", "file_name": "a.txt", "score": 0.9}]
RANKING = {"ranker": "auto", "score_threshold": 0.0}


def step(ident: str, *calls: Any, **changes: Any) -> dict[str, Any]:
    return {"id": ident, "status": "completed", "step_details": {"type": "tool_calls", "tool_calls": calls}, **changes}


def code(ident: str, **changes: Any) -> dict[str, Any]:
    told = {"input": "1", "outputs": [{"type": "logs", "logs": "ü"}], **changes}
    return {"id": ident, "type": "code_interpreter", "code_interpreter": told}


def search(ident: str, **told: Any) -> dict[str, Any]:
    return {"id": ident, "type": "file_search", "file_search": told}


def function(ident: str) -> dict[str, Any]:
    return {"id": ident, "type": "function", "function": {"name": "f", "arguments": "{}", "output": "1"}}


WROTE = {"id": "step_9", "status": "completed", "step_details": {"type": "message_creation", "message_creation": {}}}
CALLED = HostedCall("call_1", "code_interpreter", '{"code": "1"}', '[{"type": "logs", "logs": "ü"}]', None, 0)


def looked(run: dict[str, Any], table: dict[str, Any]) -> tuple[Any, list[Request]]:
    """Return what a look says of a run that has answered, and the requests that it made."""
    said = page(message("msg_1", text("one")))
    return asked(routes({ONE: answer(200, run), MESSAGES: said, **table}), lambda backend: backend.look(AT))


def test_calls_in_order_over_pages() -> None:
    """Expected: each with its step of ours, which ends where the run asks for functions; these are not among them."""
    first = page(step("step_1", code("call_1")), step("step_2", function("call_2")), more=True)
    second = page(step("step_3", search("call_3", ranking_options=RANKING, results=FOUND), function("call_4")), WROTE)
    done, requests = looked(ENDED, {STEPS: [first, second]})
    ranked = json.dumps({"ranking_options": RANKING})
    assert done.hosted == (CALLED, HostedCall("call_3", "file_search", ranked, json.dumps(FOUND), None, 1))
    paths = [one.path for one in requests if "/steps" in one.path]
    assert [path.partition("&limit=100")[2] for path in paths] == ["", "&after=step_2"]


@pytest.mark.parametrize(
    ("tools", "count", "content"),
    [
        (None, 0, False),
        ([], 0, False),
        ([{"type": "function", "function": {"name": "f"}}], 0, False),
        (BOTH[:1], 1, False),
        (BOTH[1:], 1, True),
    ],
)
def test_steps_are_asked_for_only_where_there_may_be_such_calls(tools: Any, count: int, content: bool) -> None:
    """Expected: nothing beside the run and its messages for other assistants; texts only where files are searched."""
    done, requests = looked({**ENDED, "tools": tools}, {STEPS: page()})
    assert (done.text, done.hosted) == ("one", ())
    assert len(requests) == 2 + count
    assert any("include%5B%5D=step_details.tool_calls" in one.path for one in requests) is content


@pytest.mark.parametrize("status", ["failed", "cancelled", "expired"])
def test_a_run_without_an_answer(status: str) -> None:
    """Expected: what was done before is told all the same, with the server's word for what did not end well."""
    steps = page(step("step_1", code("call_1")), step("step_2", code("call_2", outputs=[]), status=status))
    failed, _ = looked({**ENDED, "status": status}, {STEPS: steps})
    assert isinstance(failed, Failed)
    assert [(one.call_id, one.error) for one in failed.hosted] == [("call_1", None), ("call_2", status)]


def test_a_run_that_went_on_from_another() -> None:
    """Expected: the calls of both, oldest first, each in the step that its run began with."""
    after = {"metadata": {"run_id": "run-1", "attempt": "1", "step": "2", "after": "run_0"}}
    before = {**ENDED, "id": "run_0", "status": "expired"}
    table = {
        "GET /threads/thread_1/runs/run_0": answer(200, before),
        "GET /threads/thread_1/runs/run_0/steps": page(step("step_1", code("call_1"))),
        STEPS: page(step("step_2", code("call_2"))),
    }
    done, _ = looked({**ENDED, **after}, table)
    assert [(one.call_id, one.step) for one in done.hosted] == [("call_1", 0), ("call_2", 2)]
    assert done.usage.input_tokens == 20


@pytest.mark.parametrize("status", [400, 404])
def test_a_server_without_such_a_list(status: int) -> None:
    """Expected: the answer without the calls, and a warning."""
    with structlog.testing.capture_logs() as logs:
        done, requests = looked(ENDED, {STEPS: no(status)})
    assert (done.text, done.hosted, len(requests)) == ("one", (), 3)
    assert [(one["event"], one["log_level"]) for one in logs] == [("hosted_calls_unread", "warning")]


@pytest.mark.parametrize("broken", [no(500), answer(200, {"data": 7}), b"HTTP/1.1 200 OK\r\ncontent-le"])
def test_a_list_that_does_not_come(broken: bytes) -> None:
    """Expected: asked for again as other reads are, but not for ever: then the answer without it."""

    async def patient(backend: Any) -> tuple[int, Done]:
        failures = 0
        while True:
            try:
                return failures, await backend.look(AT)
            except ProviderError as error:
                failures += error.transient

    table = {ONE: answer(200, ENDED), MESSAGES: page(message("msg_1", text("one"))), STEPS: broken}
    (failures, done), _ = asked(routes(table), patient)
    assert (failures, done.text, done.hosted) == (3, "one", ())


def test_a_list_that_comes_late() -> None:
    """Expected: its calls, and the failures before are forgotten."""

    async def thrice(backend: Any) -> list[Any]:
        found = []
        for _ in range(4):
            try:
                found.append((await backend.look(AT)).hosted)
            except ProviderError as error:
                found.append(error.code)
        return found

    listed = page(step("step_1", code("call_1")))
    table: dict[str, Any] = {ONE: answer(200, ENDED), STEPS: [no(500, code="e"), listed, no(500, code="e"), listed]}
    assert asked(routes(table), thrice)[0] == ["e", (CALLED,), "e", (CALLED,)]


@pytest.mark.parametrize(
    "odd",
    [
        {"id": "call_0"},
        {"id": 7, "type": "code_interpreter", "code_interpreter": {"input": "1", "outputs": []}},
        {"id": "call_0", "type": "code_interpreter"},
        {"id": "call_0", "type": "of_tomorrow", "of_tomorrow": {}},
        {"id": "call_0", "type": ["function"]},
        None,
        "call",
    ],
)
def test_a_call_that_cannot_be_read(odd: Any) -> None:
    """Expected: the others beside it."""
    done, _ = looked(ENDED, {STEPS: page(step("step_1", odd, code("call_1")))})
    assert done.hosted == (CALLED,)


@pytest.mark.parametrize("details", [None, 7, {}, {"tool_calls": None}, {"tool_calls": 7}])
def test_a_step_that_says_nothing(details: Any) -> None:
    """Expected: passed over."""
    steps = page(step("step_1", step_details=details), step("step_2", code("call_1"), status=None))
    assert looked(ENDED, {STEPS: steps})[0].hosted == (CALLED,)


def test_what_was_not_told_is_not_made_up() -> None:
    """Expected: no code, no output; an empty list of outputs is one."""
    calls = [code("call_1", input=None, outputs=None), code("call_2", outputs=[]), search("call_3")]
    done, _ = looked(ENDED, {STEPS: page(step("step_1", *calls))})
    assert [(one.arguments, one.output) for one in done.hosted] == [("{}", None), ('{"code": "1"}', "[]"), ("{}", None)]


@pytest.mark.parametrize("kept", [1, 0])
def test_a_run_never_waits_for_calls_of_the_servers_own(kept: int) -> None:
    """Expected: ours alone are asked of us; where there is none, the run cannot be read and is looked at again."""
    run = waiting("call_1")
    calls = run["required_action"]["submit_tool_outputs"]["tool_calls"]
    run["required_action"]["submit_tool_outputs"]["tool_calls"] = [code("call_2"), search("call_3"), *calls[:kept]]
    table = routes({ONE: answer(200, run)})
    if kept:
        found, _ = asked(table, lambda backend: backend.look(AT))
        assert isinstance(found, NeedsTools)
        assert [call.call_id for call in found.calls] == ["call_1"]
    else:
        with pytest.raises(ProviderError, match="cannot be read"):
            asked(table, lambda backend: backend.look(AT))
