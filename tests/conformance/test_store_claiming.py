"""A worker takes due runs: the most urgent first, then the oldest, no row twice, nothing without a living lease."""

from datetime import timedelta

import pytest
from sqlalchemy import insert, select, text, update

from tests.conformance.ground import Ground
from worker.dbtime import from_now
from worker.errors import LostClaim
from worker.lifecycle import Event, Status
from worker.models import Pause, Run, Worker
from worker.store import asking, claiming, leases, progress, settling
from worker.store.settling import End

PASSING = End(Event.FAIL, error_code="rate_limit", error_message="too fast")


def test_a_claim_carries_all_that_driving_needs(ground: Ground) -> None:
    """Expected: owner, fence 1, attempt 1, input, configuration, the whole time limit; the row says in_progress."""
    run = ground.submit("t", "why?", metadata={"a": 1}, timeout=90.0)
    ground.boot()
    claim = ground.take()
    assert (claim.run_id, claim.thread_id, claim.worker, claim.fence) == (run, "t", "w1", 1)
    assert (claim.status, claim.attempt, claim.step, claim.cancelling) == (Status.IN_PROGRESS, 1, 0, False)
    assert (claim.input, claim.metadata, claim.assistant, claim.config) == (
        ["why?"],
        {"a": 1},
        "helper",
        {"model": "m"},
    )
    assert 85 < claim.seconds_left <= 90
    row = ground.row(run)
    assert (row.status, row.owner, row.fence, row.due_at, row.turn) == ("in_progress", "w1", 1, None, True)


def test_a_run_is_claimed_once(ground: Ground) -> None:
    """Expected: the second worker gets nothing, nor does the first a second time."""
    ground.submit()
    ground.boot("w1"), ground.boot("w2")
    assert len(ground.claim("w1")) == 1
    assert ground.claim("w2") == ground.claim("w1") == []


def test_only_who_has_the_turn_is_claimed(ground: Ground) -> None:
    """Expected: of three runs of a thread one, of two threads two."""
    first, other = ground.submit("a"), ground.submit("b")
    ground.submit("a"), ground.submit("a")
    ground.boot()
    assert sorted(ground.claimed()) == sorted([first, other])


def test_priority_goes_before_age(ground: Ground) -> None:
    """Expected: 9 before 5 before 0 among threads; within a priority the longest due first."""
    runs = {name: ground.submit(name, priority=p) for name, p in {"a": 0, "b": 5, "c": 9, "d": 5, "e": 9}.items()}
    ground.boot()
    taken = [claim.thread_id for _ in runs for claim in ground.claim(limit=1)]
    assert taken == ["c", "e", "b", "d", "a"]


def test_what_has_been_due_longest_goes_first(ground: Ground) -> None:
    """Expected: age counts from the due time, not from the submit."""
    young, old = ground.submit("a"), ground.submit("b")
    ground.make_due(old)
    ground.boot()
    assert [claim.run_id for _ in range(2) for claim in ground.claim(limit=1)] == [old, young]


@pytest.mark.parametrize("held_back", [False, True])
def test_what_has_begun_goes_before_a_backlog(ground: Ground, *, held_back: bool) -> None:
    """Expected: a run that was let go waits for none that have yet to begin, be they older or more urgent."""
    begun = ground.submit("begun")
    ground.boot()
    claim = ground.take()
    backlog = [ground.submit(f"t{number}") for number in range(3)]
    urgent = ground.submit("urgent", priority=9)
    ground.hand_over(claim)
    with ground.database.write() as connection:
        connection.execute(update(Run).where(Run.id.in_(backlog)).values(due_at=from_now(-3600)))
        if held_back:
            connection.execute(insert(Pause).values(kind="assistant", name="another"))
    assert [claim.run_id for claim in ground.claim(limit=2)] == [begun, urgent]


def test_priority_cannot_jump_the_line_of_a_thread(ground: Ground) -> None:
    """Expected: inside a thread it is first in, first out: the urgent run waits for the run before it."""
    first, urgent = ground.submit("t", priority=0), ground.submit("t", priority=9)
    ground.boot()
    claim = ground.take()
    assert claim.run_id == first
    ground.settle(claim)
    assert ground.claimed() == [urgent]


def test_a_worker_takes_only_from_its_queues(ground: Ground) -> None:
    """Expected: a queue that is not named is left alone; two named queues are both served."""
    slow, fast = ground.submit("a", queue="slow"), ground.submit("b", queue="fast")
    ground.submit("c", queue="other")
    ground.boot()
    assert ground.claimed(queues=("slow",)) == [slow]
    assert ground.claimed(queues=("slow", "fast")) == [fast]


def test_queue_names_are_values(ground: Ground) -> None:
    """Expected: a name with a quote in it is a name, not SQL."""
    run = ground.submit(queue="a' OR 'x'='x")
    ground.submit("u")
    ground.boot()
    assert ground.claimed(queues=("a' OR 'x'='x",)) == [run]


def test_the_limit_holds_over_priorities_and_queues(ground: Ground) -> None:
    """Expected: never more than there is room for, whatever they are spread over; no room takes nothing."""
    for n in range(12):
        ground.submit(f"t{n}", priority=n % 3, queue="a" if n % 2 else "b")
    ground.boot()
    sizes = [len(ground.claim(queues=("a", "b"), limit=limit)) for limit in (0, 5, 1, 100)]
    assert sizes == [0, 5, 1, 6]


def test_a_future_run_holds_the_line_of_its_thread(ground: Ground) -> None:
    """Expected: neither it nor the run behind it is claimed before its time; then it comes first."""
    future = ground.submit("t", available_at=ground.now() + timedelta(hours=1))
    behind = ground.submit("t", priority=9)
    ground.boot()
    assert ground.claimed() == []
    ground.make_due(future)
    claim = ground.take()
    assert claim.run_id == future
    ground.settle(claim)
    assert ground.claimed() == [behind]


def test_a_future_run_that_gets_the_turn_still_waits(ground: Ground) -> None:
    """Expected: the turn passes to it at once, its due time stays its own."""
    ground.submit("t")
    later = ground.now() + timedelta(hours=1)
    future = ground.submit("t", available_at=later)
    ground.boot()
    ground.settle(ground.take())
    assert ground.holder() == future
    assert ground.row(future).due_at == later
    assert ground.claimed() == []


def test_looking_in_vain_takes_no_write_lock(ground: Ground) -> None:
    """Expected: while another writes, an engine with nothing due looks and finds nothing, without waiting."""
    ground.submit(available_at=ground.now() + timedelta(hours=1))
    ground.boot()
    with ground.database.write() as writing, ground.database.read() as looking:
        assert not claiming.still_due(looking, ["default"])
        assert claiming.claim(looking, "w1", ["default"], 5) == []
        if ground.postgresql:
            assert looking.execute(text("SELECT pg_current_xact_id_if_assigned()")).scalar_one() is None
        writing.rollback()


def test_still_due_tells_what_is_left(ground: Ground) -> None:
    """Expected: true while a due run of the queues remains, false after the last."""
    ground.submit("a"), ground.submit("b"), ground.submit("c", queue="other")
    ground.boot()

    def left() -> bool:
        with ground.database.read() as connection:
            return claiming.still_due(connection, ["default"])

    seen = [left()]
    for _ in range(2):
        ground.claim(limit=1)
        seen.append(left())
    assert seen == [True, True, False]


def test_a_worker_whose_lease_ran_out_takes_nothing(ground: Ground) -> None:
    """Expected: LostClaim, and the run stays free, until the worker renews; before a reaper nothing is lost."""
    run = ground.submit()
    ground.boot()
    ground.end_lease()
    with pytest.raises(LostClaim, match="lease of worker w1"):
        ground.claim()
    assert ground.row(run).owner is None
    ground.write(leases.renew, "w1", 60.0)
    assert ground.claimed() == [run]


def test_a_worker_that_was_reaped_cannot_renew(ground: Ground) -> None:
    """Expected: LostClaim: its row is gone, and its runs are others' to take."""
    ground.boot()
    ground.end_lease()
    ground.write(leases.reap)
    with pytest.raises(LostClaim, match="lease of worker w1"):
        ground.write(leases.renew, "w1", 60.0)


def test_a_worker_without_a_row_takes_nothing(ground: Ground) -> None:
    """Expected: LostClaim; who was reaped has to boot again."""
    ground.submit()
    with pytest.raises(LostClaim):
        ground.claim("nobody")


def test_renewing_keeps_a_worker_alive(ground: Ground) -> None:
    """Expected: the new lease runs from now by the database's clock."""
    ground.boot(lease=5.0)
    ground.write(leases.renew, "w1", 600.0)
    with ground.database.read() as connection:
        until = connection.execute(select(Worker.lease_until)).scalar_one()
    assert timedelta(seconds=590) < until - ground.now() <= timedelta(seconds=600)


def test_the_reaper_makes_the_runs_of_the_dead_due(ground: Ground) -> None:
    """Expected: only the dead worker's; they keep turn, status and attempt, and go on under a higher fence."""
    dead_run, living_run = ground.submit("a"), ground.submit("b")
    ground.boot("dead"), ground.boot("alive")
    (old,) = ground.claim("dead", limit=1)
    ground.claim("alive", limit=1)
    ground.end_lease("dead")
    assert ground.write(leases.reap) == 1
    assert ground.write(leases.reap) == 0
    row = ground.row(dead_run)
    assert (row.owner, row.turn, row.status, row.due_at is not None) == (None, True, "in_progress", True)
    assert ground.row(living_run).owner == "alive"
    (new,) = ground.claim("alive")
    assert (new.run_id, new.fence, new.attempt) == (dead_run, old.fence + 1, old.attempt)


def test_the_fence_rises_with_every_claim(ground: Ground) -> None:
    """Expected: 1, 2, 3 through a retry, a hand-over and a reap; the attempt rises only with the retry."""
    run = ground.submit()
    ground.boot("w1"), ground.boot("w2")
    seen = [ground.take("w1")]
    ground.commit(seen[-1], settling.retry, 0.0, PASSING, 60.0)
    seen.append(ground.take("w1"))
    ground.hand_over(seen[-1])
    seen.append(ground.take("w1"))
    ground.end_lease("w1")
    ground.write(leases.reap)
    seen.append(ground.take("w2"))
    assert [(claim.fence, claim.attempt) for claim in seen] == [(1, 1), (2, 2), (3, 2), (4, 2)]
    assert ground.row(run).max_attempts == 3


def test_leaving_hands_everything_over(ground: Ground) -> None:
    """Expected: the count of what it held; its runs are due at once and its row is gone."""
    ground.submit("a"), ground.submit("b")
    ground.boot("w1"), ground.boot("w2")
    assert len(ground.claim("w1")) == 2
    assert ground.write(leases.leave, "w1") == 2
    assert len(ground.claim("w2")) == 2
    with pytest.raises(LostClaim):
        ground.write(leases.renew, "w1", 60.0)


def test_the_deadline_stands_from_the_first_create(ground: Ground) -> None:
    """Expected: a hand-over gives a run that has begun no more time."""
    run = ground.submit(timeout=100.0)
    ground.boot()
    claim = ground.take()
    ground.commit(claim, progress.intend, 0, "", seconds_left=30.0)
    first = ground.row(run)
    ground.hand_over(claim)
    again = ground.take()
    assert (ground.row(run).deadline_at, ground.row(run).started_at) == (first.deadline_at, first.started_at)
    assert (20 < again.seconds_left <= 30, again.stood) == (True, 0.0)


def test_the_time_of_a_run_that_has_not_begun_is_whole(ground: Ground) -> None:
    """Expected: whoever held it could only wait for a place; what its claim gives is more than its deadline says."""
    run = ground.submit(timeout=100.0)
    ground.boot()
    ground.hand_over(ground.take())
    ground._change(update(Run).where(Run.id == run).values(deadline_at=from_now(-50)))
    claim = ground.take()
    assert (claim.seconds_left, 149 < claim.stood < 160) == (100.0, True)


def test_the_time_of_a_run_that_waits_for_a_retry_stands_still(ground: Ground) -> None:
    """Expected: its next attempt has what was left, as has who goes on with one that had not begun."""
    run = ground.submit(timeout=100.0)
    ground.boot()
    claim = ground.take()
    ground.commit(claim, progress.intend, 0, "")
    ground.commit(claim, settling.retry, 0.0, PASSING, 40.0)
    assert ground.row(run).deadline_at is None
    second = ground.take()
    assert (second.attempt, second.seconds_left, round(second.stood)) == (2, 40.0, 0)
    ground.hand_over(second)
    ground._change(update(Run).where(Run.id == run).values(deadline_at=from_now(-50)))
    assert ground.take().seconds_left == 40.0


def test_a_worker_sees_which_of_its_runs_shall_be_cancelled(ground: Ground) -> None:
    """Expected: its own and only those that somebody asked for."""
    asked = ground.submit("a")
    ground.submit("b")
    ground.boot("w1"), ground.boot("w2")
    ground.claim("w1")
    ground.write(asking.ask_cancel, asked)
    with ground.database.read() as connection:
        assert leases.cancels(connection, "w1") == [asked]
        assert leases.cancels(connection, "w2") == []
