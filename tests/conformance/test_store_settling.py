"""A run ends, is tried again or is handed over: one transaction each, the turn kept or passed on in order."""

from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from tests.conformance.ground import COMPLETE, PLACE, Ground
from worker.lifecycle import Event, InvalidMove, Status
from worker.models import Attempt, Run, ToolCall
from worker.response import Asked, Opened, Usage
from worker.store import asking, claiming, held, leases, ledger, progress, reading, settling
from worker.store.settling import End, Settled

PASSING = End(Event.FAIL, error_code="rate_limit", error_message="too fast", usage=Usage(10, 1, 0.5))
ENDS = {
    Event.COMPLETE: Status.COMPLETED,
    Event.STOP_SHORT: Status.INCOMPLETE,
    Event.FAIL: Status.FAILED,
    Event.EXPIRE: Status.EXPIRED,
    Event.CANCEL: Status.CANCELLED,
}


def attempts(ground: Ground, run_id: str) -> list[Any]:
    """Return the attempts of a run in order."""
    with ground.database.read() as connection:
        return list(connection.execute(select(Attempt).where(Attempt.run_id == run_id).order_by(Attempt.number)).all())


@pytest.mark.parametrize("event", ENDS)
def test_every_end_passes_the_turn(ground: Ground, event: Event) -> None:
    """Expected: status, output, error and time of the end are kept; turn and owner are gone; the next is due."""
    run, behind = ground.submit(), ground.submit(queue="other")
    ground.boot()
    settled = ground.settle(ground.take(), End(event, "partial", "code", "message"))
    assert settled == Settled(ENDS[event], "other")
    row = ground.row(run)
    assert (row.status, row.output_text, row.error_code, row.error_message) == (
        ENDS[event].value,
        "partial",
        "code",
        "message",
    )
    assert (row.turn, row.owner, row.due_at) == (False, None, None)
    assert row.started_at <= row.finished_at
    assert (ground.holder(), ground.row(behind).due_at <= ground.now()) == (behind, True)


def test_the_turn_goes_through_the_thread_in_order(ground: Ground) -> None:
    """Expected: five runs are carried out in the order in which they came, one at a time."""
    runs = [ground.submit(priority=n) for n in range(5)]
    ground.boot()
    done = []
    for _ in runs:
        claim = ground.take()
        done.append(claim.run_id)
        ground.settle(claim)
    assert done == runs
    assert ground.holder() is None


def test_a_run_is_settled_once(ground: Ground) -> None:
    """Expected: nothing waits after the last; a run submitted later finds the turn free."""
    ground.submit()
    ground.boot()
    assert ground.settle(ground.take()) == Settled(Status.COMPLETED, None)
    assert ground.holder() is None
    assert ground.submit() == ground.holder()


def test_a_retry_keeps_the_turn(ground: Ground) -> None:
    """Expected: queued for later with the turn; nobody of the thread overtakes; then a second attempt begins."""
    run, behind = ground.submit(), ground.submit(priority=9)
    ground.boot()
    ground.commit(ground.take(), settling.retry, 3600.0, PASSING, 60.0)
    row = ground.row(run)
    assert (row.status, row.turn, row.owner, row.attempt) == ("queued", True, None, 1)
    assert 3590 < (row.due_at - ground.now()).total_seconds() <= 3600
    assert ground.claimed() == []
    ground.make_due(run)
    claim = ground.take()
    assert (claim.run_id, claim.attempt, claim.provider_id) == (run, 2, None)
    ground.settle(claim)
    assert ground.claimed() == [behind]


def test_a_retry_closes_its_attempt_with_the_reason(ground: Ground) -> None:
    """Expected: the first attempt has end and reason, the second is open."""
    run = ground.submit()
    ground.boot()
    ground.commit(ground.take(), settling.retry, 0.0, PASSING, 60.0)
    ground.take()
    told = [(a.number, a.error_code, a.ended_at is not None) for a in attempts(ground, run)]
    assert told == [(1, "rate_limit", True), (2, None, False)]


def test_a_cancelling_run_is_never_tried_again(ground: Ground) -> None:
    """Expected: InvalidMove, and nothing changed: its only end is `cancelled`, even with a result."""
    run = ground.submit()
    ground.boot()
    claim = ground.take()
    ground.commit(claim, settling.start_cancelling)
    before = ground.everything()
    with pytest.raises(InvalidMove, match="cancelling cannot retry"):
        ground.commit(claim, settling.retry, 0.0, PASSING, 60.0)
    assert ground.everything() == before
    assert ground.settle(claim, COMPLETE).status is Status.CANCELLED
    assert ground.status(run) is Status.CANCELLED


def test_a_retry_of_a_run_to_cancel_does_not_wait(ground: Ground) -> None:
    """Expected: due at once, with the request in the claim, however long the delay is."""
    run = ground.submit()
    ground.boot()
    claim = ground.take()
    ground.write(asking.ask_cancel, run)
    ground.commit(claim, settling.retry, 3600.0, PASSING, 60.0)
    assert ground.take().cancelling


def test_a_hand_over_goes_on_with_the_same_provider_run(ground: Ground) -> None:
    """Expected: status, attempt, step and provider id as they were; no new attempt."""
    run = ground.submit()
    ground.boot("w1"), ground.boot("w2")
    claim = ground.take("w1")
    ground.commit(claim, progress.intend, 0, "item_0")
    ground.commit(claim, progress.created, 0, "resp_1")
    ground.hand_over(claim)
    again = ground.take("w2")
    assert (again.status, again.attempt, again.provider_id, again.intent_step) == (claim.status, 1, "resp_1", None)
    assert len(attempts(ground, run)) == 1


def test_usage_adds_up(ground: Ground) -> None:
    """Expected: the tokens and prices of every response of every attempt, without what floats add to a sum."""
    run = ground.submit()
    ground.boot()
    ground.commit(ground.take(), settling.retry, 0.0, PASSING, 60.0)
    claim = ground.take()
    call = [Asked("c1", "add", "{}")]
    ground.commit(claim, progress.need_tools, effects={}, step=0, calls=call, usage=Usage(100, 20, 0.1), last_item="i1")
    ground.settle(claim, End(Event.COMPLETE, "done", usage=Usage(200, 30, 0.7)))
    row = ground.row(run)
    assert (row.input_tokens, row.output_tokens, row.cost_usd) == (310, 51, 1.3)


def test_more_tokens_than_a_column_holds(ground: Ground) -> None:
    """Expected: a server that miscounts loses nobody the answer; as many stand there as can."""
    most = 2**31 - 1
    run = ground.submit()
    ground.boot()
    ground.commit(ground.take(), settling.retry, 0.0, End(Event.FAIL, error_code="e", usage=Usage(most, 1)), 60.0)
    ground.settle(ground.take(), End(Event.COMPLETE, "done", usage=Usage(1, most)))
    row = ground.row(run)
    assert (row.status, row.input_tokens, row.output_tokens) == ("completed", most, most)


@pytest.mark.parametrize(
    ("usage", "kept"),
    [(Usage(), (None, None, None)), (Usage(5, 6), (5, 6, None)), (Usage(5, 6, 0.0), (5, 6, 0.0))],
)
def test_what_is_unknown_is_not_nothing(ground: Ground, usage: Usage, kept: tuple[object, ...]) -> None:
    """Expected: null for what nobody has counted or priced, 0 only for what costs nothing."""
    run = ground.submit()
    ground.boot()
    ground.settle(ground.take(), End(Event.COMPLETE, "done", usage=usage))
    row = ground.row(run)
    assert (row.input_tokens, row.output_tokens, row.cost_usd) == kept


def test_messages_are_written_with_the_end(ground: Ground) -> None:
    """Expected: question and answer of each run in the order of the runs; nothing of a run that is under way."""
    first, second = ground.submit(words="one"), ground.submit(words="two")
    ground.boot()
    ground.settle(ground.take(), End(Event.COMPLETE, "1", answered=True, last_item="item_9"))
    held = ground.take()
    assert held.last_item == "item_9"
    ground.settle(held, End(Event.FAIL, error_code="e"))
    with ground.database.read() as connection:
        told = [(m["run_id"], m["role"], m["content"]) for m in reading.messages(connection, "t")]
    answer = [{"type": "text", "text": "1"}]
    assert told == [(first, "user", ["one"]), (first, "assistant", answer), (second, "user", ["two"])]


def test_an_answer_that_is_more_than_text_is_kept_in_its_parts(ground: Ground) -> None:
    """Expected: its parts as they are, also where it has no text; the run shows its text."""
    image = {"type": "image_file", "image_file": {"file_id": "file_1"}}
    marked = {"type": "text", "text": "1", "annotations": [{"type": "file_path"}]}
    runs = [ground.submit(), ground.submit()]
    ground.boot()
    ground.settle(ground.take(), End(Event.COMPLETE, "1", answered=True, parts=(marked, image)))
    ground.settle(ground.take(), End(Event.COMPLETE, "", answered=True, parts=(image,)))
    with ground.database.read() as connection:
        said = [m["content"] for m in reading.messages(connection, "t") if m["role"] == "assistant"]
    assert said == [[marked, image], [image]]
    assert [ground.row(run).output_text for run in runs] == ["1", ""]


def test_the_journal_tells_the_story(ground: Ground) -> None:
    """Expected: one event for each thing that happened, in order, with the attempt and the worker."""
    run = ground.submit()
    ground.boot("w1"), ground.boot("w2")
    ground.commit(ground.take("w1"), settling.retry, 0.0, PASSING, 60.0)
    ground.hand_over(ground.take("w1"))
    ground.settle(ground.take("w2"))
    with ground.database.read() as connection:
        told = [(e["name"], e["attempt"], e["worker"]) for e in reading.events(connection, run)]
    assert told == [
        ("submitted", 0, None),
        ("claimed", 1, "w1"),
        ("retried", 1, "w1"),
        ("claimed", 2, "w1"),
        ("handed_over", 2, "w1"),
        ("claimed", 2, "w2"),
        ("completed", 2, "w2"),
    ]


def test_a_settle_that_is_rolled_back_has_not_happened(ground: Ground) -> None:
    """Expected: status, turn, ledger and journal as before; the claim still holds and settles afterwards."""
    run, behind = ground.submit(), ground.submit()
    ground.boot()
    claim = ground.take()
    before = ground.everything()
    with ground.database.write() as connection:
        held.commit(connection, claim, settling.settle, COMPLETE)
        connection.rollback()
    assert ground.everything() == before
    assert ground.settle(claim).next_queue == "default"
    assert (ground.status(run), ground.holder()) == (Status.COMPLETED, behind)


def test_the_database_refuses_a_second_turn(ground: Ground) -> None:
    """Expected: even a write that ignores the protocol cannot give a thread two turns: the index is the backstop."""
    ground.submit()
    behind = ground.submit()
    before = ground.everything()
    with pytest.raises(IntegrityError, match=r"(?i)unique"), ground.database.write() as connection:
        connection.execute(update(Run).where(Run.id == behind).values(turn=True))
    assert ground.everything() == before


def test_a_leaving_workers_claim_under_way_is_handed_over(postgres_url: str) -> None:
    """Expected: leaving waits for a claim that is not committed yet and makes its runs due as well."""
    ground = Ground(postgres_url)
    run = ground.submit()
    ground.boot("w1"), ground.boot("w2")
    with ground.database.write() as connection:
        leave = ground.behind(
            connection, claiming.claim, "w1", ["default"], 5, meanwhile=lambda c: leases.leave(c, "w1")
        )
    assert leave.result(20) == 1
    assert ground.claimed("w2") == [run]
    ground.close()


def test_a_crash_lets_the_run_go_as_it_is(ground: Ground) -> None:
    """Expected: due later, in the same attempt, with the response and the intent that it had."""
    run = ground.submit()
    ground.boot()
    claim = ground.take()
    ground.commit(claim, progress.created, 0, "resp_1")
    ground.commit(claim, progress.intend, 1, "item_1")
    assert ground.commit(claim, settling.crashed, 3600.0, 3)
    row = ground.row(run)
    assert (row.status, row.turn, row.owner, row.attempt) == ("in_progress", True, None, 1)
    assert 3590 < (row.due_at - ground.now()).total_seconds() <= 3600
    ground.make_due(run)
    again = ground.take()
    assert (again.attempt, again.provider_id, again.intent_step, again.created) == (1, "resp_1", 1, 1)


def test_the_third_crash_of_an_attempt_is_not_let_go(ground: Ground) -> None:
    """Expected: false, and the run is still held, so that its owner can end it; the next attempt counts anew."""
    run = ground.submit()
    ground.boot()
    for _ in range(2):
        assert ground.commit(ground.take(), settling.crashed, 0.0, 3)
    claim = ground.take()
    before = ground.everything()
    assert not ground.commit(claim, settling.crashed, 0.0, 3)
    assert ground.everything() == before
    ground.commit(claim, settling.retry, 0.0, PASSING, 60.0)
    assert ground.commit(ground.take(), settling.crashed, 0.0, 3)
    assert [attempt.crashes for attempt in attempts(ground, run)] == [2, 1]


def test_an_abandoned_conversation_is_nobodys(ground: Ground) -> None:
    """Expected: the thread has no conversation any more and no open calls; its messages stay."""
    ground.submit(), ground.submit()
    ground.boot()
    claim = ground.take()
    ground.commit(claim, progress.set_conversation, Opened("conv_1"), PLACE, "")
    ground.commit(
        claim,
        progress.need_tools,
        effects={},
        step=0,
        calls=[Asked("c1", "f", "{}")],
        usage=Usage(),
        last_item="item_1",
    )
    ground.settle(claim, End(Event.CANCEL, abandon=True))
    after = ground.take()
    assert (after.conversation, after.last_item) == (None, None)
    with ground.database.read() as connection:
        assert ledger.still_open(connection, "t") == []
        assert [message["content"] for message in reading.messages(connection, "t")] == [["hello"]]


def test_calls_that_an_end_leaves_open_are_the_next_runs(ground: Ground) -> None:
    """Expected: the calls of a response that came too late stand in the ledger, never begun, for who comes next."""
    ground.submit(), ground.submit()
    ground.boot()
    claim = ground.take()
    ground.settle(claim, End(Event.EXPIRE, answered=True, left_open=(Asked("c1", "f", "{}"),), last_item="item_1"))
    after = ground.take()
    assert after.last_item == "item_1"
    with ground.database.read() as connection:
        (call,) = ledger.still_open(connection, "t")
    assert (call.run_id, call.call_id, call.status, call.starts) == (claim.run_id, "c1", "asked", 0)
    ground.commit(after, ledger.write_off, call, "not any more", "cancelled")
    ground.settle(after, End(Event.COMPLETE, "done", answered=True))
    with ground.database.read() as connection:
        assert ledger.still_open(connection, "t") == []


def test_ends_of_different_kinds_go_together(ground: Ground) -> None:
    """Expected: all turns are given up before any is passed on, whatever columns each end has written."""
    for thread in ("t1", "t1", "t2", "t2"):
        ground.submit(thread)
    ground.boot()
    paid, failed = ground.claim()
    ends = [End(Event.COMPLETE, "done", usage=Usage(1, 1, 0.1)), End(Event.FAIL, error_code="x")]
    jobs = [held.Job(claim, settling.settle, (end,)) for claim, end in zip((paid, failed), ends, strict=True)]
    told = ground.write(held.carry_out, jobs)
    assert [outcome.result.next_queue for outcome in told] == ["default", "default"]
    assert [claim.seq for claim in ground.claim()] == [2, 2]


def test_one_unit_that_fails_spoils_nothing_for_the_others(ground: Ground) -> None:
    """Expected: a lost claim and a move that cannot be are told to their callers alone, and write nothing."""
    for thread in ("t1", "t2", "t3"):
        ground.submit(thread)
    ground.boot()
    lost, wrong, well = ground.claim()
    ground.hand_over(lost)
    ground.commit(wrong, settling.start_cancelling)
    jobs = [held.Job(lost, settling.settle, (COMPLETE,)), held.Job(wrong, settling.retry, (0.0, PASSING, 60.0))]
    told = ground.write(held.carry_out, [*jobs, held.Job(well, settling.settle, (COMPLETE,))])
    assert [type(outcome.error).__name__ for outcome in told[:2]][1] == "InvalidMove"
    assert (told[2].error, ground.status(well.run_id)) == (None, Status.COMPLETED)
    assert (ground.status(lost.run_id), ground.status(wrong.run_id)) == (Status.IN_PROGRESS, Status.CANCELLING)


def test_calls_that_a_left_conversation_asked_for_are_closed(ground: Ground) -> None:
    """Expected: what the last response asked for is nobody's where the thread goes on in a fresh conversation."""
    ground.submit()
    ground.boot()
    end = End(Event.CANCEL, answered=True, left_open=(Asked("c1", "add", "{}"),), abandon=True)
    ground.settle(ground.take(), end)
    with ground.database.read() as connection:
        assert connection.execute(select(ToolCall.closed)).scalars().all() == [True]


def test_a_cancel_that_came_before_the_park_does_not_wait_for_the_look(ground: Ground) -> None:
    """Expected: due now; without the request in an hour."""
    runs = [ground.submit(thread) for thread in ("a", "b")]
    ground.boot()
    claims = ground.claim()
    ground.write(asking.ask_cancel, runs[0])
    for claim in claims:
        ground.commit(claim, settling.park_until_look, 3600.0, 0.0, None)
    assert ground.claimed() == runs[:1]


def test_a_park_forgives_crashes_and_moves_a_deadline(ground: Ground) -> None:
    """Expected: a worker could carry it, so that what others could not is over; the time that stood still counts."""
    run = ground.submit(timeout=100.0)
    ground.boot()
    ground.commit(ground.take(), settling.crashed, 0.0, 3)
    claim = ground.take()
    assert attempts(ground, run)[0].crashes == 1
    ground.commit(claim, settling.park_until_look, 3600.0, 5.0, 1000.0)
    assert attempts(ground, run)[0].crashes == 0
    assert 900 < (ground.row(run).deadline_at - ground.now()).total_seconds() <= 1000
