"""Outsiders ask, the owner carries it out: a cancel at each stage of a run, and reopening one that has ended."""

from typing import Any

import pytest

from tests.conformance.ground import Ground
from worker.errors import UnknownRun, UsageError
from worker.lifecycle import Event, Status
from worker.response import Asked, Usage
from worker.store import asking, deciding, ledger, progress, reading, settling
from worker.store.claiming import Claim
from worker.store.settling import End

FAILED = End(Event.FAIL, error_code="e", error_message="m")


def with_call(ground: Ground, claim: Claim, *call_ids: str, effects: dict[str, str] | None = None) -> None:
    """Let the run's first response ask for the tool `add`."""
    calls = [Asked(call_id, "add", "{}") for call_id in call_ids or ("c1",)]
    step: dict[str, Any] = {"step": 0, "calls": calls, "usage": Usage(), "last_item": None}
    ground.commit(claim, progress.need_tools, effects=effects or {}, **step)


def test_a_queued_run_with_the_turn_is_cancelled_at_once(ground: Ground) -> None:
    """Expected: ended, the turn passed on, the queue of the next returned; no owner has to come by."""
    run, behind = ground.submit(), ground.submit(queue="other")
    assert ground.write(asking.ask_cancel, run) == (Status.CANCELLED, "other")
    row = ground.row(run)
    assert (row.turn, row.due_at, row.finished_at is not None) == (False, None, True)
    assert ground.holder() == behind


def test_a_waiting_run_is_cancelled_without_touching_the_turn(ground: Ground) -> None:
    """Expected: ended at once; the run before it keeps the turn, the one behind it moves up."""
    first, waiting, last = (ground.submit() for _ in range(3))
    assert ground.write(asking.ask_cancel, waiting) == (Status.CANCELLED, None)
    assert ground.holder() == first
    ground.boot()
    ground.settle(ground.take())
    assert ground.claimed() == [last]


def test_a_run_that_waits_for_its_retry_is_cancelled_at_once(ground: Ground) -> None:
    """Expected: no further attempt: nobody holds it and its provider run has ended."""
    run, behind = ground.submit(), ground.submit()
    ground.boot()
    ground.commit(ground.take(), settling.retry, 3600.0, FAILED, 60.0)
    assert ground.write(asking.ask_cancel, run) == (Status.CANCELLED, "default")
    assert ground.claimed() == [behind]


def test_a_held_run_is_only_asked(ground: Ground) -> None:
    """Expected: status, owner and turn stay with the owner, who sees the request and carries it out."""
    run, behind = ground.submit(), ground.submit()
    ground.boot()
    claim = ground.take()
    assert ground.write(asking.ask_cancel, run) == (Status.IN_PROGRESS, None)
    assert (ground.row(run).owner, ground.holder()) == ("w1", run)
    ground.commit(claim, settling.start_cancelling)
    assert ground.status(run) is Status.CANCELLING
    assert ground.settle(claim, End(Event.COMPLETE, "too late")).status is Status.CANCELLED
    assert ground.claimed() == [behind]


def test_a_run_between_two_owners_is_asked(ground: Ground) -> None:
    """Expected: its provider run may live, so it is not ended from here; it is due, and whoever claims it is told."""
    run = ground.submit()
    ground.boot()
    ground.hand_over(ground.take())
    assert ground.write(asking.ask_cancel, run) == (Status.IN_PROGRESS, "default")
    claim = ground.take()
    assert (claim.run_id, claim.cancelling) == (run, True)


def test_a_run_in_its_tools_is_asked(ground: Ground) -> None:
    """Expected: as any held run; a hand-over while it is cancelling keeps it cancelling."""
    run = ground.submit()
    ground.boot()
    claim = ground.take()
    calls = [Asked("c1", "add", "{}")]
    ground.commit(claim, progress.need_tools, effects={}, step=0, calls=calls, usage=Usage(), last_item=None)
    assert ground.write(asking.ask_cancel, run) == (Status.REQUIRES_ACTION, None)
    ground.commit(claim, settling.start_cancelling)
    ground.hand_over(claim)
    assert (ground.take().status, ground.row(run).attempt) == (Status.CANCELLING, 1)


def test_a_parked_run_is_asked_and_due_at_once(ground: Ground) -> None:
    """Expected: it does not wait for its question to expire; whoever claims it is told of the cancel."""
    run = ground.submit(queue="q")
    ground.boot(queues=("q",))
    (claim,) = ground.claim(queues=("q",))
    with_call(ground, claim)
    ground.commit(claim, deciding.ask, ["c1"], "approval", 3600.0)
    ground.commit(claim, settling.park_until_answer, 60.0)
    assert ground.claimed(queues=("q",)) == []
    assert ground.write(asking.ask_cancel, run) == (Status.REQUIRES_ACTION, "q")
    (claim,) = ground.claim(queues=("q",))
    assert (claim.run_id, claim.cancelling) == (run, True)


def test_asking_again_changes_nothing(ground: Ground) -> None:
    """Expected: the first request's time stays; an ended run stays as it ended."""
    run = ground.submit()
    ground.boot()
    claim = ground.take()
    ground.write(asking.ask_cancel, run)
    asked = ground.row(run).cancel_requested_at
    ground.write(asking.ask_cancel, run)
    assert ground.row(run).cancel_requested_at == asked
    ground.settle(claim)
    before = ground.everything()
    assert ground.write(asking.ask_cancel, run) == (Status.CANCELLED, None)
    assert ground.everything() == before


def test_a_cancel_after_the_end_comes_too_late(ground: Ground) -> None:
    """Expected: a completed run stays completed, nothing is written."""
    run = ground.submit()
    ground.boot()
    ground.settle(ground.take())
    before = ground.everything()
    assert ground.write(asking.ask_cancel, run) == (Status.COMPLETED, None)
    assert ground.everything() == before


def test_a_cancel_before_the_end_is_final(ground: Ground) -> None:
    """Expected: cancelled, although its owner had not seen the request and reports a result."""
    run = ground.submit()
    ground.boot()
    claim = ground.take()
    ground.write(asking.ask_cancel, run)
    assert ground.settle(claim, End(Event.COMPLETE, "result")).status is Status.CANCELLED


def ended(ground: Ground, event: Event) -> Claim:
    """Let the one run that is due end this way."""
    claim = ground.take()
    ground.settle(claim, End(event, "partial", "e", "m"))
    return claim


@pytest.mark.parametrize("event", [Event.FAIL, Event.STOP_SHORT, Event.EXPIRE, Event.CANCEL])
def test_a_reopened_run_begins_one_further_attempt(ground: Ground, event: Event) -> None:
    """Expected: the same run, place and thread, due at once, attempt 2 of 2, no trace of the end, new time."""
    run = ground.submit(max_attempts=1, timeout=60.0, queue="q")
    ground.boot()
    (claim,) = ground.claim(queues=("q",))
    ground.settle(claim, End(event, "partial", "e", "m"))
    assert ground.write(asking.reopen, run) == "q"
    row = ground.row(run)
    assert (row.status, row.seq, row.turn, row.max_attempts) == ("queued", 1, True, 2)
    assert (row.error_code, row.error_message, row.finished_at, row.deadline_at) == (None, None, None, None)
    (again,) = ground.claim(queues=("q",))
    assert (again.attempt, again.fence, again.cancelling, again.seconds_left > 55) == (2, 2, False, True)


def test_a_reopened_run_goes_on_from_its_last_settled_step(ground: Ground) -> None:
    """Expected: the step and its ledger stay: what was paid for is not asked again."""
    run = ground.submit()
    ground.boot()
    claim = ground.take()
    calls = [Asked("c1", "add", "{}")]
    ground.commit(claim, progress.need_tools, effects={}, step=0, calls=calls, usage=Usage(), last_item="i1")
    ground.settle(claim, FAILED)
    ground.write(asking.reopen, run)
    assert ground.take().step == 1


def test_a_reopened_run_asks_anew_what_nobody_decided(ground: Ground) -> None:
    """Expected: the question is gone and what was decided stays; its time is whole again."""
    run = ground.submit(timeout=600.0)
    ground.boot()
    claim = ground.take()
    with_call(ground, claim, "c1", "c2")
    ground.commit(claim, deciding.ask, ["c1", "c2"], "approval", 3600.0)
    ground.commit(claim, settling.park_until_answer, 1.0)
    ground.write(deciding.approve, run, "c2", by="ann")
    ground.write(asking.ask_cancel, run)
    ground.settle(ground.take(), End(Event.CANCEL))
    ground.write(asking.reopen, run)
    again = ground.take()
    assert again.seconds_left > 590
    with ground.database.read() as connection:
        calls = {call.call_id: call for call in ledger.still_open(connection, "t")}
    assert (calls["c1"].question, calls["c1"].decision, calls["c1"].overdue) == (None, None, False)
    assert (calls["c2"].question, calls["c2"].decision) == ("approval", "approved")
    ground.commit(again, deciding.ask, ["c1"], "approval", 3600.0)
    with ground.database.read() as connection:
        assert [one.call_id for one in deciding.pending(connection)] == ["c1"]


@pytest.mark.parametrize(
    ("effect", "begun", "closed", "refused"),
    [
        ("once", True, True, True),
        ("once", True, False, False),
        ("once", False, True, False),
        ("idempotent", True, True, False),
    ],
)
def test_a_run_that_could_repeat_a_call_is_not_reopened(
    ground: Ground, effect: str, begun: bool, closed: bool, refused: bool
) -> None:
    """Expected: refused only where it would start over after a `once` call began; with start_over it is reopened."""
    run = ground.submit()
    ground.boot()
    claim = ground.take()
    with_call(ground, claim, effects={"add": effect})
    if begun:
        ground.commit(claim, ledger.start, ["c1"])
    ground.settle(claim, FAILED)
    if closed:
        ground.write(ledger.close_without_a_run, "t")
    if refused:
        before = ground.everything()
        with pytest.raises(UsageError, match=r"start over and could call add a second time; .*--start-over"):
            ground.write(asking.reopen, run)
        assert ground.everything() == before
    assert ground.write(asking.reopen, run, start_over=refused) == "default"


def test_a_run_whose_calls_another_answers_first_is_not_reopened(ground: Ground) -> None:
    """Expected: refused: the run that has the turn answers the open calls, so this one would start over behind it."""
    run, behind = ground.submit(), ground.submit()
    ground.boot()
    claim = ground.take()
    with_call(ground, claim, effects={"add": "once"})
    ground.commit(claim, ledger.start, ["c1"])
    ground.settle(claim, FAILED)
    with pytest.raises(UsageError, match="start over and could call add a second time"):
        ground.write(asking.reopen, run)
    ground.settle(ground.take(), End(Event.COMPLETE, answered=True))
    with ground.database.read() as connection:
        assert ledger.still_open(connection, "t") == []
    assert (ground.status(run), ground.status(behind)) == (Status.FAILED, Status.COMPLETED)


def test_a_reopened_run_keeps_its_place(ground: Ground) -> None:
    """Expected: behind the run that has the turn now, before everything else of the thread."""
    first, second, third = (ground.submit() for _ in range(3))
    ground.boot()
    ended(ground, Event.FAIL)
    assert ground.write(asking.reopen, first) is None
    assert ground.holder() == second
    done = [ended(ground, Event.COMPLETE).run_id for _ in range(3)]
    assert done == [second, first, third]


def test_reopening_never_makes_two_turns(ground: Ground) -> None:
    """Expected: two ended runs of a thread reopened together: the first has the turn, the second waits."""
    first, second = ground.submit(), ground.submit()
    ground.boot()
    ended(ground, Event.FAIL), ended(ground, Event.FAIL)
    assert ground.write(asking.reopen, second) == "default"
    assert ground.write(asking.reopen, first) is None
    assert ground.claimed() == [second]
    assert ground.status(first) is Status.QUEUED


def test_a_reopened_runs_messages_stand_there_once(ground: Ground) -> None:
    """Expected: after the second end one question and one answer, not the first end's as well."""
    run = ground.submit(words="why?")
    ground.boot()
    ended(ground, Event.STOP_SHORT)
    ground.write(asking.reopen, run)
    ground.settle(ground.take(), End(Event.COMPLETE, "whole"))
    with ground.database.read() as connection:
        told = [m["content"] for m in reading.messages(connection, "t")]
    assert told == [["why?"], [{"type": "text", "text": "whole"}]]


def test_a_result_is_never_thrown_away(ground: Ground) -> None:
    """Expected: reopening a completed run is refused with the reason, and nothing changes."""
    run = ground.submit()
    ground.boot()
    ended(ground, Event.COMPLETE)
    before = ground.everything()
    with pytest.raises(UsageError, match=f"run {run} has its result"):
        ground.write(asking.reopen, run)
    assert ground.everything() == before


def test_a_run_under_way_is_not_reopened(ground: Ground) -> None:
    """Expected: the error says in which status it still is."""
    run = ground.submit()
    with pytest.raises(UsageError, match="is still queued"):
        ground.write(asking.reopen, run)
    ground.boot()
    ground.take()
    with pytest.raises(UsageError, match="is still in_progress"):
        ground.write(asking.reopen, run)


def test_an_unknown_run_is_named(ground: Ground) -> None:
    """Expected: UnknownRun from both doors."""
    for ask in (asking.ask_cancel, asking.reopen):
        with pytest.raises(UnknownRun, match="no run 'nope'"):
            ground.write(ask, "nope")
