"""Calls of the provider's own tools are kept: once, with the step that made them, whatever happens meanwhile.

On each protocol that has such tools, and on both databases.
"""

import asyncio
import contextlib
import json
from typing import Any

import pytest

from tests.conformance.course import Course
from tests.conformance.ground import Ground
from tests.conformance.test_simulator_hosted import CODE, FOUND, SEARCH
from tests.driving import drive_on
from tests.servers import Simulator
from worker.backends.assistants.backend import AssistantsBackend
from worker.backends.choice import MAKERS
from worker.backends.places import PROTOCOLS
from worker.backends.responses.backend import ResponsesBackend
from worker.lifecycle import Event, Status
from worker.run.pace import Held
from worker.store import assistants, leases, ledger, reading
from worker.store.reading import RunView
from worker.store.settling import End
from worker.watching.watcher import Watcher

CALL = '[[call look_up {"name": "x"}]]'
HOSTED = {"code_interpreter": {"file_ids": []}, "file_search": {"vector_store_ids": ["vs_1"]}}


@pytest.fixture(params=[name for name, can in PROTOCOLS.items() if "hosted_tools" in can.settings])
def course(request: pytest.FixtureRequest, ground: Ground, simulator: Simulator) -> Course:
    """Give one backend on one database; the assistant has tools of the provider's own beside one of ours."""
    simulator.settings()
    course = Course(ground, simulator, request.param)
    config = {
        "model": "gpt-6-luna",
        "tools": ["look_up"],
        "hosted_tools": HOSTED,
        "backend": {"protocol": request.param},
    }
    ground.assistant_id = ground.write(assistants.apply, "clerk", config)[0].id
    return course


def view(course: Course, run: str) -> RunView:
    with course.ground.database.read() as connection:
        return reading.run(connection, run)


def told(course: Course, run: str) -> list[tuple[str, bool]]:
    """Return the names of a run's calls in order, and which of them were the provider's."""
    return [(call["name"], call["hosted"]) for call in view(course, run).tool_calls]


def test_both_kinds_of_servers_are_tried() -> None:
    """Expected: what has such tools stands in this list, and can be chosen."""
    assert {name for name, can in PROTOCOLS.items() if "hosted_tools" in can.settings} == {"responses", "assistants"}
    assert {"responses", "assistants"} <= set(MAKERS)


def test_code_and_searches_are_kept(course: Course) -> None:
    """Expected: each with what it was given and what came of it, completed and closed, never begun by us."""
    run = course.submit(f"{CODE}{SEARCH}[[say Old.]]")
    course.carry()
    assert course.ground.status(run) is Status.COMPLETED
    code, search = course.calls()
    assert (code.name, search.name) == ("code_interpreter", "file_search")
    assert json.loads(code.arguments) == {"code": "print(1 + 2)"}
    assert json.loads(code.output) == [{"type": "logs", "logs": "3"}]
    (found,) = json.loads(search.output)
    assert (found["file_id"], found["score"]) == (FOUND["file_id"], FOUND["score"])
    assert FOUND["text"] in search.output
    for call in (code, search):
        state = (call.status, call.error, call.starts, call.closed, call.effect, call.step)
        assert state == ("completed", None, 0, True, "hosted", 0)
        assert call.finished_at is not None
    assert course.events().count("hosted_calls") == 1
    assert course.looked == []


def test_beside_a_call_of_our_own(course: Course) -> None:
    """Expected: all in the order in which they were made; ours alone is run, once, and answered."""
    run = course.submit(f"{CODE}{CALL}[[then]]{SEARCH}[[say Old.]]")
    course.carry()
    row = view(course, run)
    assert (row.status, row.output_text) == (Status.COMPLETED, "Old.")
    assert told(course, run) == [("code_interpreter", True), ("look_up", False), ("file_search", True)]
    assert [call.step for call in sorted(course.calls(), key=lambda call: call.step)] == [0, 0, 1]
    assert course.looked == ["x"]


def test_an_assistant_without_them(course: Course) -> None:
    """Expected: its model is offered none, and none is kept."""
    bare = {"model": "gpt-6-luna", "tools": ["look_up"], "backend": {"protocol": course.protocol}}
    course.ground.assistant_id = course.ground.write(assistants.apply, "bare", bare)[0].id
    run = course.submit(f"{CODE}[[say None.]]", thread="bare")
    course.carry()
    assert told(course, run) == []


def test_steps_that_are_followed(course: Course) -> None:
    """Expected: the last event of a stream tells what a look would."""
    config = {"model": "gpt-6-luna", "hosted_tools": HOSTED, "stream": True, "backend": {"protocol": course.protocol}}
    course.ground.assistant_id = course.ground.write(assistants.apply, "followed", config)[0].id
    run = course.submit(f"{CODE}[[say 3]]")
    course.carry()
    assert told(course, run) == [("code_interpreter", True)]
    assert course.simulator.counters()["streams"] == (1 if course.protocol == "responses" else 0)


def test_many_calls(course: Course) -> None:
    """Expected: all of them, in order, also where the server lists them page by page."""
    many = [f'[[hosted code_interpreter {{"code": "{at}"}}]]' for at in range(230)]
    run = course.submit("".join(many) + "[[say Counted.]]")
    course.carry()
    kept = [json.loads(call["arguments"])["code"] for call in view(course, run).tool_calls]
    assert kept == [str(at) for at in range(230)]


def test_a_run_that_fails_keeps_what_was_done(course: Course) -> None:
    """Expected: the code that a run's model ran before it failed is in the ledger; a response does not show it."""
    run = course.submit(f"{CODE}{CALL}[[then]][[fail invalid_prompt No.]]")
    course.carry()
    assert course.ground.status(run) is Status.FAILED
    assert told(course, run) == [("code_interpreter", True), ("look_up", False)]


def test_an_answer_that_is_cut_keeps_what_was_done(course: Course) -> None:
    """Expected: incomplete, with the call."""
    run = course.submit(f"{CODE}[[say One two three four.]][[incomplete]]")
    course.carry()
    assert course.ground.status(run) is Status.INCOMPLETE
    assert told(course, run) == [("code_interpreter", True)]


def test_a_cancelled_run_keeps_what_was_done(course: Course) -> None:
    """Expected: what the steps before the cancel did; the call of ours is not answered."""
    run = course.submit(f"{CODE}{CALL}")
    course.endless = True
    course.disturb("look_up", cancel=True)
    assert course.ground.status(run) is Status.CANCELLED
    assert told(course, run) == [("code_interpreter", True), ("look_up", False)]


def test_a_run_that_is_let_go_keeps_what_was_done(course: Course) -> None:
    """Expected: where it fails here, what waits there is ended, and its calls and tokens are kept."""
    config = {"model": "gpt-6-luna", "tools": ["look_up"], "hosted_tools": HOSTED, "max_steps": 1}
    config["backend"] = {"protocol": course.protocol}
    course.ground.assistant_id = course.ground.write(assistants.apply, "short", config)[0].id
    run = course.submit(f"{CODE}{CALL}")
    course.carry()
    row = course.ground.row(run)
    assert (row.status, row.error_code) == (Status.FAILED, "max_steps")
    assert row.input_tokens > 0
    assert told(course, run) == [("code_interpreter", True), ("look_up", False)]


def test_a_worker_that_dies_between_the_end_and_the_keeping(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: the next worker reads the end once more and keeps the calls once."""
    run = course.submit(f"{CODE}{SEARCH}[[say Old.]]")
    seen: list[Any] = []

    async def main() -> None:
        bench = course.parts()
        held = Held(course.ground.take("w1"))
        backend = bench.backends.at(bench.backends.place(held.claim.config))
        look, dies = backend.look, asyncio.get_running_loop().create_future()

        async def looked(provider_id: str) -> Any:
            found = await look(provider_id)
            if getattr(found, "hosted", ()):
                seen.append(found)
                dies.set_result(None)
                await asyncio.Event().wait()
            return found

        monkeypatch.setattr(backend, "look", looked)
        driving = asyncio.create_task(drive_on(held, bench))
        async with asyncio.timeout(20):
            await dies
        driving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await driving
        await bench.backends.close()

    asyncio.run(main())
    assert (len(seen), course.calls()) == (1, [])
    course.ground.end_lease("w1")
    course.ground.write(leases.reap)
    course.carry("w2")
    assert course.ground.status(run) is Status.COMPLETED
    assert told(course, run) == [("code_interpreter", True), ("file_search", True)]
    assert course.repeated() == 0


def test_a_create_whose_answer_is_lost(course: Course) -> None:
    """Expected: the run or result that is found again has its calls, too."""
    run = course.submit(f"[[drop after]]{CODE}[[say 3]]")
    course.carry()
    assert course.ground.status(run) is Status.COMPLETED
    assert told(course, run) == [("code_interpreter", True)]


def test_a_later_attempt_does_not_answer_them(course: Course) -> None:
    """Expected: a run that goes on elsewhere is told of our calls alone, and keeps its own beside those of before."""
    run = course.submit(f"{CODE}{CALL}[[then]][[fail server_error x2]][[say Found.]]")
    course.carry()
    assert course.ground.status(run) is Status.QUEUED
    course.ground.make_due(run)
    course.carry()
    assert course.ground.status(run) is Status.COMPLETED
    assert told(course, run)[:2] == [("code_interpreter", True), ("look_up", False)]
    assert course.looked.count("x") == 1
    with course.ground.database.read() as connection:
        assert {answer.name for answer in ledger.answered(connection, run)} == {"look_up"}


def test_an_answer_with_citations(course: Course) -> None:
    """Expected: kept with the message; the run shows the text."""
    run = course.submit(f"{SEARCH}[[say Old.]]")
    course.carry()
    with course.ground.database.read() as connection:
        answer = reading.messages(connection, "t")[-1]["content"]
    assert [part["text"] for part in answer] == ["Old."]
    assert "file_1" in json.dumps(answer[0]["annotations"])
    assert view(course, run).output_text == "Old."


def test_a_thread_that_goes_on_elsewhere(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: it begins there with the texts alone: what else an answer holds are files at the server before."""
    course.submit(f"{SEARCH}[[say Old.]]")
    course.carry()
    course.submit("draw")
    image = {"type": "image_file", "image_file": {"file_id": "file_2"}}
    course.ground.settle(course.ground.take(), End(Event.COMPLETE, "", answered=True, parts=(image,)))
    other = "assistants" if course.protocol == "responses" else "responses"
    moved = {"model": "gpt-6-luna", "backend": {"protocol": other}}
    course.ground.assistant_id = course.ground.write(assistants.apply, "moved", moved)[0].id
    begun: list[Any] = []
    opened: Any = {"assistants": AssistantsBackend, "responses": ResponsesBackend}[other]
    real = opened.open_conversation

    async def open_conversation(self: Any, thread_id: str, history: Any = ()) -> Any:
        begun.extend((message["role"], message["content"]) for message in history)
        return await real(self, thread_id, history)

    monkeypatch.setattr(opened, "open_conversation", open_conversation)
    after = course.submit("[[say Next.]]")
    course.carry()
    assert view(course, after).output_text == "Next."
    assert [role for role, _ in begun] == ["user", "assistant", "user"]
    assert begun[1][1] == [{"type": "text", "text": "Old."}]


def test_watchers_are_told(course: Course) -> None:
    """Expected: one event with both calls, marked as the provider's, before the end."""
    run = course.submit(f"{CODE}{SEARCH}[[say Old.]]")
    course.carry()
    events = list(Watcher(course.ground.database, None, run).events(5))
    (told_of,) = [event for event in events if event.kind == "output"]
    assert [(call["name"], call["hosted"], call["status"]) for call in told_of.calls] == [
        ("code_interpreter", True, "completed"),
        ("file_search", True, "completed"),
    ]
    assert events[-1].kind == "end"
