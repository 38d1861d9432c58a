"""What every backend must do: the same runs, tools, failures and crashes on each protocol and both databases.

A new backend is one line in BACKENDS.
"""

import asyncio

import pytest

from tests.conformance.course import Course
from tests.conformance.ground import Ground
from tests.servers import Simulator
from tests.workbench import parts
from worker.backends.choice import MAKERS
from worker.backends.places import PROTOCOLS, Place
from worker.lifecycle import Status

# The protocol's word, and what the simulator is to be like for it.
BACKENDS: dict[str, dict[str, object]] = {
    "responses": {},
    "responses-stateless": {"stateless": True},
    "chat": {},
    "assistants": {},
}
CALL = '[[call look_up {"name": "x"}]]'


@pytest.fixture(params=BACKENDS)
def course(request: pytest.FixtureRequest, ground: Ground, simulator: Simulator) -> Course:
    """Give one backend on one database, before a simulator of its kind."""
    simulator.settings(**BACKENDS[request.param])
    return Course(ground, simulator, request.param)


def end(course: Course, run: str) -> tuple[Status, str | None, str | None]:
    """Return how a run stands, with what code and what text."""
    row = course.ground.row(run)
    return Status(row.status), row.error_code, row.output_text


def done(text: str) -> tuple[Status, str | None, str | None]:
    return Status.COMPLETED, None, text


def test_every_backend_is_tried() -> None:
    """Expected: what can be chosen stands in this list."""
    assert set(BACKENDS) == set(MAKERS)


# ── the way of a run ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer(course: Course) -> None:
    """Expected: the text, the tokens that it took, and one step that was carried out once."""
    run = course.submit("[[say Paris.]]")
    course.carry()
    row = course.ground.row(run)
    assert end(course, run) == done("Paris.")
    assert row.input_tokens > 0
    assert row.output_tokens > 0
    assert course.events() == ["submitted", "claimed", "created", "completed"]
    assert course.repeated() == 0


def test_a_call(course: Course) -> None:
    """Expected: the walk through requires_action, the function called once, its output read by the model."""
    run = course.submit(f"{CALL}[[say Found.]]")
    course.carry()
    assert end(course, run) == done("Found.")
    assert course.looked == ["x"]
    walk = ["submitted", "claimed", "created", "requires_action", "tool_finished", "created", "completed"]
    assert course.events() == walk
    assert [(call.output, call.closed) for call in course.calls()] == [("x stands in the book", True)]


def test_several_rounds_of_parallel_calls(course: Course) -> None:
    """Expected: all calls of a round are answered together, in each of three rounds."""
    rounds = ['[[call look_up {"name": "a"}]][[call look_up {"name": "b"}]]', '[[call look_up {"name": "c"}]]', CALL]
    run = course.submit("[[then]]".join(rounds) + "[[say All.]]")
    course.carry()
    assert end(course, run) == done("All.")
    assert sorted(course.looked[:2]) == ["a", "b"]
    assert course.looked[2:] == ["c", "x"]
    assert [(call.step, call.position) for call in course.calls()] == [(0, 0), (0, 1), (1, 0), (2, 0)]


def test_a_thread_knows_what_was_said(course: Course) -> None:
    """Expected: the calls and answers of earlier runs are part of the conversation, in order, and are not repeated."""
    first = course.submit(f"{CALL}[[say One.]]")
    second = course.submit("[[say Two.]]")
    third = course.submit(f"{CALL}[[say Three.]]")
    course.carry(rounds=3)
    assert [end(course, run) for run in (first, second, third)] == [done("One."), done("Two."), done("Three.")]
    assert course.looked == ["x", "x"]
    assert course.simulator.counters()["overlaps"] == 0


@pytest.mark.parametrize(
    "text", ["Grüße, 日本語 \U0001f600 \u2028 \x7f", "word " * 60_000, 'quotes " and \\ and {"json": 1}']
)
def test_any_text(course: Course, text: str) -> None:
    """Expected: what is asked arrives, however long or odd, and so does what is answered."""
    run = course.submit(f"{text} [[say {text[:2000]}]]")
    course.carry()
    assert end(course, run) == done(text[:2000].strip())


def test_an_answer_that_is_cut(course: Course) -> None:
    """Expected: incomplete, with the text that there was."""
    run = course.submit("[[say One two three four five six seven.]][[incomplete]]")
    course.carry()
    status, code, text = end(course, run)
    assert (status, code) == (Status.INCOMPLETE, "max_output_tokens")
    assert text
    assert "One two three four five six seven.".startswith(text)


# ── failures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_failure_that_passes(course: Course) -> None:
    """Expected: a second attempt that completes."""
    run = course.submit("[[fail server_error x1]][[say Again.]]")
    course.carry()
    assert course.ground.status(run) is Status.QUEUED
    course.ground.make_due(run)
    course.carry()
    assert end(course, run) == done("Again.")
    assert [attempt.error_code for attempt in course.attempts()] == ["server_error", None]


def test_a_failure_that_does_not_pass(course: Course) -> None:
    """Expected: failed with the provider's code, after one attempt; the thread goes on."""
    run, after = course.submit("[[fail invalid_prompt No.]]"), course.submit("[[say Next.]]")
    course.carry(rounds=2)
    assert end(course, run)[:2] == (Status.FAILED, "invalid_prompt")
    assert end(course, after) == done("Next.")


def test_a_later_attempt_goes_on_from_the_last_step(course: Course) -> None:
    """Expected: the finished call is not run again, and its output is what the new attempt begins with."""
    run = course.submit(f"{CALL}[[then]][[fail server_error x2]][[say Found.]]")
    course.carry()
    assert course.ground.status(run) is Status.QUEUED
    course.ground.make_due(run)
    course.carry()
    status, _, text = end(course, run)
    assert (status, course.looked.count("x")) == (Status.COMPLETED, 1)
    # A server whose run has ended is told the outputs in a message, which is all that this model then thinks of.
    assert (text or "").endswith("stands in the book." if PROTOCOLS[course.protocol].holds else "Found.")


@pytest.mark.parametrize("trouble", ["[[drop before]]", "[[drop after]]", "[[late 0.3]]"])
@pytest.mark.parametrize("at", [0, 1])
def test_a_create_whose_answer_is_lost(course: Course, trouble: str, at: int) -> None:
    """Expected: found again where the provider keeps it, asked for again where it does not; the tool runs once.

    Where nobody can tell whether there is something to be found, the run fails and says so.
    """
    first, second = (trouble, "") if at == 0 else ("", trouble)
    run = course.submit(f"{first}{CALL}[[then]]{second}[[say Found.]]")
    course.carry()
    if course.ground.status(run) is Status.QUEUED:
        assert not PROTOCOLS[course.protocol].resumes
        course.ground.make_due(run)
        course.carry()
    if end(course, run)[1] == "unknown_outcome":
        assert (trouble, PROTOCOLS[course.protocol].resumes) == ("[[drop before]]", True)
        return
    assert end(course, run) == done("Found.")
    assert course.looked == ["x"]
    assert course.repeated() == 0


def test_an_answer_that_comes_slowly(course: Course) -> None:
    """Expected: read to its end."""
    run = course.submit("[[slow 0.5]][[say Slowly but surely.]]")
    course.carry()
    assert end(course, run) == done("Slowly but surely.")


# ── disturbed ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_worker_that_dies_while_the_model_works(course: Course) -> None:
    """Expected: the same provider run goes on, or the step is asked for once more and counted, where it cannot."""
    run = course.submit("[[latency 0.4]][[say Done.]]")
    course.disturb("run.created")
    course.carry("w2")
    assert end(course, run) == done("Done.")
    resumes = PROTOCOLS[course.protocol].resumes
    assert [attempt.reissued for attempt in course.attempts()] == [0 if resumes else 1]
    assert course.repeated() == (0 if resumes else 1)


def test_a_worker_that_dies_between_two_steps(course: Course) -> None:
    """Expected: the finished call is not run again; the other worker goes on with its output."""
    run = course.submit(f"{CALL}[[then]][[latency 0.4]][[say Found.]]")
    course.disturb("run.created", times=2)
    course.carry("w2")
    assert end(course, run) == done("Found.")
    assert course.looked == ["x"]


def test_a_worker_that_stops(course: Course) -> None:
    """Expected: what the provider goes on with is handed over at once, the rest may end first; nothing is repeated."""
    run = course.submit("[[latency 0.4]][[say Done.]]")
    held = course.disturb("run.created", stop=True)
    if held.handed_over:
        assert PROTOCOLS[course.protocol].resumes
        course.ground.hand_over(held.claim)
        course.carry("w2")
    assert end(course, run) == done("Done.")
    assert course.repeated() == 0


def test_a_cancel_while_the_model_works(course: Course) -> None:
    """Expected: cancelled, nothing goes on at the provider, and the thread's next run does."""
    run, after = course.submit("[[hang]]"), course.submit("[[say Next.]]")
    course.disturb("run.created", cancel=True)
    assert end(course, run)[0] is Status.CANCELLED
    course.carry()
    assert end(course, after) == done("Next.")
    counters = course.simulator.counters()
    assert (counters["active_in_conversations"], counters["overlaps"]) == (0, 0)


def test_a_cancel_while_a_tool_works_does_not_spoil_the_thread(course: Course) -> None:
    """Expected: the call that has no output is answered before the conversation goes on, or its run is ended."""
    run, after = course.submit(CALL), course.submit(f"{CALL}[[say Next.]]")
    course.endless = True
    course.disturb("look_up", cancel=True)
    course.endless = False
    assert end(course, run)[0] is Status.CANCELLED
    course.carry()
    assert end(course, after) == done("Next.")
    assert course.looked == ["x", "x"]


@pytest.mark.parametrize("protocol", BACKENDS)
def test_its_connections_are_closed_with_the_worker(ground: Ground, protocol: str) -> None:
    """Expected: what was opened for it stays open for nobody."""

    async def story() -> list[bool]:
        bench = parts(ground, None)
        bench.backends.at(Place(protocol, "http://127.0.0.1:1/v1"))
        sessions = [http._session for http in bench.backends._opened]
        await bench.close()
        return [session.closed for session in sessions]

    assert asyncio.run(story()) == [True]
