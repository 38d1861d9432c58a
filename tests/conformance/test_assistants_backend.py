"""The Assistants backend against a server that rejects, drops, lies, and has gone on meanwhile."""

import asyncio
import json
from typing import Any

import pytest

from tests.assisting import MADE, NO_RUNS, RUN, asked, doing, page, routes
from tests.conformance.test_responses_backend import LOST, PAGE, limit
from tests.scripted import KEY, Request, Script, answer, saying, transience
from worker.assistants.prices import Prices
from worker.backends.base import Done, Failed, NeedsTools, Pending, Tail
from worker.errors import ProviderError
from worker.response import Answer, Asked, Usage

AT = "thread_1/run_1"
RUNS, ONE = "/threads/thread_1/runs", "GET /threads/thread_1/runs/run_1"
SUBMIT = "POST /threads/thread_1/runs/run_1/submit_tool_outputs"
CANCEL = "POST /threads/thread_1/runs/run_0/cancel"
OUTPUTS = doing(text="", previous=AT, number=1, answers=[Answer("call_1", "3", "add", "{}")])
USED = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
NEXT = {**RUN, "id": "run_2", "metadata": {"run_id": "run-1", "attempt": "1", "step": "1"}}


def no(status: int, message: str = f"No: {KEY}", code: str | None = None) -> bytes:
    return answer(status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}})


def waiting(*ids: str) -> dict[str, Any]:
    calls = [{"id": one, "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}} for one in ids]
    required = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": calls}}
    return {**RUN, "status": "requires_action", "required_action": required}


async def create(backend: Any) -> str:
    return str((await backend.create(doing())).id)


async def submit(backend: Any) -> str:
    return str((await backend.create(OUTPUTS)).id)


async def look(backend: Any) -> Any:
    return await backend.look(AT)


def refused(script: Script, call: Any, **options: Any) -> ProviderError:
    """Return the error that a call ends with; the key is never in it."""
    with pytest.raises(ProviderError) as caught:
        asked(script, call, **options)
    assert KEY not in f"{caught.value} {caught.value.message}"
    return caught.value


def posts(requests: list[Request]) -> list[str]:
    return [one.path.removeprefix("/v1") for one in requests if one.method == "POST"]


# ── what a lost or refused request means ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", LOST)
def test_a_lost_answer(name: str) -> None:
    """Nobody can tell of a run's create; outputs are given once more, and a look is repeated."""

    async def losing(request: Request) -> Any:
        lost = request.method == "POST" and request.path.endswith("/runs")
        async for chunk in (LOST[name] if lost else routes({}))(request):
            yield chunk

    seconds = limit(LOST[name])
    assert transience(refused(losing, create, limit=seconds)) == "unknown"
    assert transience(refused(LOST[name], look, limit=seconds)) == "transient"
    assert transience(refused(LOST[name], submit, limit=seconds)) == "transient"


@pytest.mark.parametrize("call", [create, look])
@pytest.mark.parametrize(
    ("status", "code", "meaning"),
    [
        (400, None, "permanent"),
        (401, "invalid_api_key", "permanent"),
        (404, None, "permanent"),
        (409, None, "transient"),
        (429, "rate_limit_exceeded", "transient"),
        (429, "insufficient_quota", "permanent"),
        (500, "server_error", "transient"),
    ],
)
def test_a_rejection(call: Any, status: int, code: str | None, meaning: str) -> None:
    """The status and the code decide, and a create was not carried out."""
    script = routes({f"POST {RUNS}": no(status, code=code), ONE: no(status, code=code)})
    error = refused(script, call)
    assert (transience(error), error.code) == (meaning, code or f"http_{status}")
    assert "[key]" in error.message


@pytest.mark.parametrize("call", [create, look, submit])
@pytest.mark.parametrize("words", ["No thread found with id 'thread_1'.", "Thread thread_1 not found"])
def test_a_thread_that_is_gone(call: Any, words: str) -> None:
    """It is told as a conversation that is gone, for which a fresh one takes its place."""
    script = routes({f"POST {RUNS}": no(404, words), ONE: no(404, words), SUBMIT: no(404, words)})
    assert refused(script, call).code == "conversation_gone"


def test_a_create_within_the_last_place() -> None:
    """What a create has to know first needs no second place among the requests, or all would wait for each other."""

    async def within(backend: Any) -> str:
        async with asyncio.timeout(10), backend.slots:
            return str((await backend.create(doing(attempt=2))).id)

    assert asked(routes({}), within, requests=1)[0] == AT


# ── the assistant ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def twice(backend: Any) -> None:
    await backend.create(doing())
    await backend.create(doing())


def fingerprint() -> str:
    """Return what the metadata of our assistant say."""
    _, requests = asked(routes({}), create)
    (made,) = [json.loads(one.body) for one in requests if one.path == "/v1/assistants" and one.method == "POST"]
    return str(made["metadata"]["runwright"])


def test_an_assistant_is_found_by_its_metadata() -> None:
    """The oldest that matches on any page is taken, looked for once, and none is made."""
    ours = {"runwright": fingerprint()}
    others = {"id": "asst_0", "metadata": {"runwright": "other"}}
    pages = [page(others, more=True), page({"id": "asst_a", "metadata": ours}, {"id": "asst_b", "metadata": ours})]
    _, requests = asked(routes({"GET /assistants": pages}), twice)
    assert posts(requests) == [RUNS, RUNS]
    assert {json.loads(one.body)["assistant_id"] for one in requests if one.method == "POST"} == {"asst_a"}
    assert "after=asst_0" in requests[1].path


def test_of_two_made_at_once_the_older_is_taken() -> None:
    """Another worker made one between our look and ours."""
    ours = {"runwright": fingerprint()}
    both = page({"id": "asst_other", "metadata": ours}, {**MADE, "metadata": ours})
    _, requests = asked(routes({"GET /assistants": [page(), both]}), create)
    assert json.loads(requests[-1].body)["assistant_id"] == "asst_other"


def test_an_assistant_that_was_deleted_is_made_again() -> None:
    """The refusal of the run says that nothing was created: it is created with the new one."""
    gone = no(404, "No assistant found with id 'asst_1'.")
    table = {f"POST {RUNS}": [gone, answer(200, RUN)]}
    created, requests = asked(routes(table), create)
    assert (created, posts(requests)) == (AT, ["/assistants", RUNS, "/assistants", RUNS])


# ── a thread that is busy ─────────────────────────────────────────────────────────────────────────────────────────────

BUSY = no(400, "Thread thread_1 already has an active run run_0.")


@pytest.mark.parametrize(
    ("metadata", "status", "cancels", "ended"),
    [
        ({}, "in_progress", False, False),
        ({}, "in_progress", True, True),
        ({"run_id": "run-0"}, "requires_action", False, True),
        ({"run_id": "run-1", "attempt": "0", "step": "0"}, "queued", False, True),
        ({"run_id": "run-0"}, "cancelling", False, False),
        ({}, "completed", True, False),
    ],
)
def test_a_busy_thread_is_waited_for(metadata: dict[str, str], status: str, cancels: bool, ended: bool) -> None:
    """What nobody goes on with is cancelled; of others the setting decides. The create is tried again then."""
    cancelled: list[Request] = []

    async def script(request: Request) -> Any:
        if request.path.endswith("/cancel"):
            cancelled.append(request)
        active = {"id": "run_0", "status": status, "metadata": metadata}
        table = {f"POST {RUNS}": BUSY, f"GET {RUNS}": page(active), CANCEL: answer(200, RUN)}
        async for chunk in routes(table)(request):
            yield chunk

    error = refused(script, create, cancels_foreign=cancels)
    assert (error.code, transience(error)) == ("conversation_locked", "transient")
    assert len(cancelled) == ended


def test_our_own_active_run_is_taken_up() -> None:
    """It is the one whose create was thought to be lost."""
    assert asked(routes({f"POST {RUNS}": BUSY, f"GET {RUNS}": page(RUN)}), create)[0] == AT


# ── found again ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ([], None),
        ([RUN], AT),
        ([{"id": "foreign", "status": "completed", "metadata": {}}, RUN], AT),
        ([{**RUN, "metadata": {**RUN["metadata"], "step": "1"}}], None),  # type: ignore[dict-item]
        ([{"id": "older", "status": "completed", "metadata": {"run_id": "run-0"}}, RUN], None),
    ],
)
def test_a_run_is_found_by_its_metadata(there: list[dict[str, Any]], found: str | None) -> None:
    """Newest first, past the runs of others; behind an earlier run of ours there is none."""
    created, _ = asked(routes({f"GET {RUNS}": page(*there)}), lambda backend: backend.adopt(doing(), ""))
    assert (created and created.id) == found


# ── outputs that come late, or twice ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "now",
    [{**RUN, "status": status} for status in ("queued", "in_progress", "completed", "failed", "incomplete")]
    + [waiting("call_2")],
    ids=lambda run: str(run["status"]),
)
def test_outputs_that_are_there_already(now: dict[str, Any]) -> None:
    """A run that has gone on has them: that counts as done, and a look tells the rest."""
    refusal = no(400, f'Runs in status "{now["status"]}" do not accept tool outputs.')
    created, requests = asked(routes({SUBMIT: refusal, ONE: answer(200, now)}), submit)
    assert (created, len(requests)) == (AT, 2)


def test_outputs_that_are_refused() -> None:
    """A run that still waits for them, and does not take them, never will."""
    error = refused(routes({SUBMIT: no(400, "too long"), ONE: answer(200, waiting("call_1"))}), submit)
    assert (transience(error), "too long" in error.message) == ("permanent", True)


def test_a_run_that_is_being_cancelled_is_waited_for() -> None:
    """Until it has ended, none can follow it."""
    now = answer(200, {**RUN, "status": "cancelling"})
    assert transience(refused(routes({SUBMIT: no(400), ONE: now}), submit)) == "transient"


@pytest.mark.parametrize(
    "now", [answer(200, {**RUN, "status": "expired"}), answer(200, {**RUN, "status": "cancelled"}), no(404)]
)
def test_a_run_that_has_ended_is_gone_on_from(now: bytes) -> None:
    """Another one begins, names it, and is told the outputs; one that was begun before is taken up instead."""
    refusal = no(400, 'Runs in status "expired" do not accept tool outputs.')
    table = {SUBMIT: refusal, ONE: now, f"POST {RUNS}": answer(200, NEXT)}
    created, requests = asked(routes(table), submit)
    assert created == "thread_1/run_2"
    body = json.loads(requests[-1].body)
    assert body["metadata"] == {"run_id": "run-1", "attempt": "1", "step": "1", "after": "run_1"}
    assert '"output": "3"' in body["additional_messages"][0]["content"][0]["text"]
    created, requests = asked(routes({**table, f"GET {RUNS}": page(NEXT)}), submit)
    assert (created, RUNS in posts(requests)) == ("thread_1/run_2", False)


# ── looks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def looked(run: Any, messages: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
    table = {ONE: answer(200, run, headers), "GET /threads/thread_1/messages": messages or page()}
    return asked(routes(table), look)[0]


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelling"])
@pytest.mark.parametrize(
    ("told", "seconds"), [("250", 0.25), ("0", 0.0), ("-1", None), ("nan", None), ("inf", None), ("soon", None)]
)
def test_a_run_that_goes_on(status: str, told: str, seconds: float | None) -> None:
    """The server says when to look again, where what it says is a time."""
    found = looked({**RUN, "status": status}, headers={"openai-poll-after-ms": told})
    assert found == Pending(status == "queued", seconds)


def test_all_calls_are_asked_for_at_once() -> None:
    """What a run has used is not told before its end, lest it be counted twice."""
    asked_for = tuple(Asked(one, "add", '{"a": 1}') for one in ("call_1", "call_2"))
    assert looked({**waiting("call_1", "call_2"), "usage": USED}) == NeedsTools(asked_for, Usage(), None)


@pytest.mark.parametrize(
    "run",
    [waiting(), waiting("call_1", "call_1"), {**RUN, "status": "requires_action"}, {**RUN, "status": None}, NO_RUNS],
)
def test_a_run_that_cannot_be_understood(run: Any) -> None:
    """It is looked at again: no call is guessed or dropped."""
    error = refused(routes({ONE: answer(200, run)}), look)
    assert (transience(error), error.code) == ("transient", "bad_answer")


def message(ident: str, *parts: Any, **changes: Any) -> dict[str, Any]:
    return {"id": ident, "role": "assistant", "run_id": "run_1", "content": list(parts), **changes}


def text(value: str, *annotations: Any) -> dict[str, Any]:
    return {"type": "text", "text": {"value": value, "annotations": list(annotations)}}


def test_an_answer() -> None:
    """All texts of the run's own messages in order, over pages; with images and files they are kept in parts."""
    image = {"type": "image_file", "image_file": {"file_id": "file_1"}}
    mark = {"type": "file_path", "text": "sandbox:/a", "file_path": {"file_id": "file_2"}}
    first = page(message("msg_1", text("one"), image), message("msg_2", text("no"), run_id="run_0"), more=True)
    second = page(message("msg_3", text("no"), role="user"), message("msg_4", text("two", mark)))
    run = {**RUN, "status": "completed", "usage": USED, "completed_at": 7}
    table: dict[str, Any] = {ONE: answer(200, run), "GET /threads/thread_1/messages": [first, second]}
    done, requests = asked(routes(table), look)
    usage = Usage(10, 5, Prices.load().cost("gpt-4o-mini", 10, 5))
    made = {"type": "text", "text": "two", "annotations": [mark]}
    assert done == Done("one\n\ntwo", usage, "msg_4", None, 7, parts=({"type": "text", "text": "one"}, image, made))
    assert requests[1].path == "/v1/threads/thread_1/messages?run_id=run_1&order=asc&limit=100"
    assert requests[2].path.endswith("&after=msg_2")


def test_an_answer_cut_short() -> None:
    """Its text is kept with the reason; a refusal is the text where there is no other."""
    cut = {**RUN, "status": "incomplete", "incomplete_details": {"reason": "max_prompt_tokens"}}
    done = looked(cut, page(message("msg_1", {"type": "refusal", "refusal": "I will not."})))
    assert (done.text, done.stopped_by) == ("I will not.", "max_prompt_tokens")
    assert looked({**RUN, "status": "incomplete"}).stopped_by == "unknown_reason"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": "failed", "last_error": {"code": "server_error", "message": KEY}}, ("server_error", True)),
        ({"status": "failed", "last_error": {"code": "rate_limit_exceeded"}}, ("rate_limit_exceeded", True)),
        ({"status": "failed", "last_error": {"code": "invalid_prompt"}}, ("invalid_prompt", False)),
        ({"status": "failed", "last_error": None}, ("failed_at_provider", False)),
        ({"status": "expired"}, ("expired", True)),
        ({"status": "cancelled"}, ("cancelled_at_provider", False)),
        ({"status": "of_tomorrow" * 50}, ("of_tomorrow" * 50)[:80]),
    ],
)
def test_a_run_that_failed(changes: dict[str, Any], expected: Any) -> None:
    """The provider's code and message are kept with what was used; what nobody knows is a failure, too."""
    failed = looked({**RUN, "usage": USED, **changes})
    assert isinstance(failed, Failed)
    wanted = (f"{expected}_at_provider", False) if isinstance(expected, str) else expected
    assert ((failed.code, failed.transient), failed.usage.input_tokens) == (wanted, 10)
    assert KEY not in failed.message


@pytest.mark.parametrize(
    ("before", "total"),
    [
        (answer(200, {**RUN, "id": "run_0", "status": "expired", "usage": USED}), 20),
        (answer(200, {**RUN, "id": "run_0", "usage": USED, "metadata": {"after": "run_0"}}), 20),
        (answer(200, {**RUN, "id": "run_0", "status": "expired"}), None),
        (no(404), None),
    ],
)
def test_what_the_runs_before_it_used_counts(before: bytes, total: int | None) -> None:
    """A run that went on from others tells the sum; where one does not say, nobody knows it."""
    run = {**RUN, "status": "completed", "usage": USED, "metadata": {"after": "run_0"}}
    table = {ONE: answer(200, run), "GET /threads/thread_1/runs/run_0": before}
    assert asked(routes(table), look)[0].usage.input_tokens == total


# ── ends ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("status", "meaning"), [(200, None), (400, None), (404, None), (409, "t"), (500, "t")])
def test_cancelling(status: int, meaning: str | None) -> None:
    """What has ended is left as it is, and the answer is not read; what may pass is the caller's to repeat."""
    script = routes({f"POST {RUNS}/run_1/cancel": answer(status, PAGE)})
    if meaning is None:
        assert posts(asked(script, lambda backend: backend.cancel(AT))[1]) == [f"{RUNS}/run_1/cancel"]
    else:
        assert transience(refused(script, lambda backend: backend.cancel(AT))) == "transient"


@pytest.mark.parametrize("status", [200, 404])
def test_deleting_a_thread(status: int) -> None:
    """One request, the id in its place; what the server does not know is as good as deleted."""
    _, (one,) = asked(saying(answer(status, PAGE)), lambda backend: backend.delete_conversation("thread/1"))
    assert (one.method, one.path) == ("DELETE", "/v1/threads/thread%2F1")


def test_nothing_is_open_in_a_thread() -> None:
    """A call waits with its run alone: no request, nothing to repair."""
    assert asked(routes({}), lambda backend: backend.tail("thread_1")) == (Tail("", ()), [])


@pytest.mark.parametrize("ident", ["../files", "run/1", "r" * 100, "", None, 7, "run\x00"])
def test_an_id_that_is_none(ident: Any) -> None:
    """A run whose id could lead elsewhere, or is too long to keep, is as good as one whose answer was lost."""
    assert transience(refused(routes({f"POST {RUNS}": answer(200, {**RUN, "id": ident})}), create)) == "unknown"
