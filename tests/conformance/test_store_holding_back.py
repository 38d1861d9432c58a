"""Caps of assistants and budgets of batches: what has reached them is not begun, and nobody else waits for it."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import func, select, text

from tests.conformance.ground import Ground
from tests.conformance.test_store_plans import fill, plan, reads_the_whole_table, statements
from worker.conditions import IN_PROGRESS
from worker.errors import UsageError
from worker.lifecycle import Event
from worker.models import Run, Spending
from worker.response import Usage
from worker.store import assistants, batches, budgets, claiming, groups, leases, overview, pausing, submitting
from worker.store.pausing import Kind
from worker.store.settling import End

DEAR = End(Event.COMPLETE, "done", usage=Usage(1, 1, 0.6))


def cap(ground: Ground, most: int | None) -> None:
    """Let the assistant's newest version say how many of its runs may be in progress."""
    config: dict[str, Any] = {"model": "m"} if most is None else {"model": "m", "max_active": most}
    ground.write(assistants.apply, "helper", config)


def other(ground: Ground, thread: str) -> str:
    """Submit a run of an assistant without a cap."""
    aside = ground.write(assistants.apply, "aside", {"model": "m"})[0].id
    ground.assistant_id, first = aside, ground.assistant_id
    run_id = ground.submit(thread)
    ground.assistant_id = first
    return run_id


def why(ground: Ground, run_id: str) -> list[str]:
    with ground.database.read() as connection:
        return groups.why(connection, run_id)


def test_no_more_than_the_cap_are_in_progress(ground: Ground) -> None:
    """Expected: two of five, one more for each that ends, all when the cap is lifted; old versions count too."""
    runs = [ground.submit(f"t{n}") for n in range(5)]
    cap(ground, 2)
    ground.boot()
    first = ground.claim()
    assert {claim.run_id for claim in first} == set(runs[:2])
    assert ground.claimed() == []
    assert why(ground, runs[4]) == ["assistant helper: 2 runs in progress, of at most 2"]
    assert why(ground, runs[0]) == []
    with ground.database.read() as connection:
        assert not claiming.still_due(connection, ["default"])
        (told,) = overview.overview(connection).caps
    assert (told.assistant, told.max_active, told.active, told.due) == ("helper", 2, 2, 3)
    ground.settle(first[0])
    assert ground.claimed() == [runs[2]]
    cap(ground, None)
    assert sorted(ground.claimed()) == sorted(runs[3:])


def test_nobody_else_waits_for_a_capped_assistant(ground: Ground) -> None:
    """Expected: a run of another assistant is claimed from behind those that are held back."""
    cap(ground, 1)
    runs = [ground.submit(f"t{n}") for n in range(3)]
    free = other(ground, "free")
    ground.boot()
    assert ground.claimed() == [runs[0], free]


def test_what_is_in_progress_goes_on(ground: Ground) -> None:
    """Expected: a run that a dead worker leaves is taken by another one although the cap is reached."""
    cap(ground, 1)
    run, _ = ground.submit("t1"), ground.submit("t2")
    ground.boot()
    assert ground.claimed() == [run]
    ground.end_lease()
    assert ground.write(leases.reap) == 1
    ground.boot("w2")
    assert ground.claimed("w2") == [run]


def test_the_cap_holds_when_many_claim_at_once(ground: Ground) -> None:
    """Expected: six workers claim at the same moment, again and again, and never are more than five in progress."""
    cap(ground, 5)
    for number in range(40):
        ground.submit(f"t{number}")
    workers = [ground.boot(f"w{number}") for number in range(6)]
    start = Barrier(len(workers))

    def work(worker: str) -> int:
        start.wait()
        most, done = 0, 0
        for _ in range(4):
            claims = ground.claim(worker, limit=4)
            with ground.database.read() as connection:
                most = max(
                    most, connection.execute(select(func.count()).select_from(Run).where(IN_PROGRESS)).scalar_one()
                )
            done += len([ground.settle(claim) for claim in claims])
        assert most <= 5
        return done

    with ThreadPoolExecutor(len(workers)) as pool:
        assert sum(pool.map(work, workers)) >= 5


def test_a_batch_is_held_back_when_its_budget_is_spent(ground: Ground) -> None:
    """Expected: begun until the known cost reaches the budget; then seen why, and going on when it is raised."""
    batch = ground.write(batches.create, "helper", "p", None, 1.0)
    runs = [ground.submit(f"t{n}", batch_id=batch) for n in range(4)]
    free = ground.submit("free")
    ground.boot()
    for run in runs[:2]:
        (claim,) = ground.claim(limit=1)
        assert claim.run_id == run
        ground.settle(claim, DEAR)
    assert ground.claimed() == [free]
    reason = "its cost of $1.2000 has reached its budget of $1; `runwright batch budget` raises it"
    assert why(ground, runs[2]) == [f"budget {batch}: {reason}"]
    with ground.database.read() as connection:
        told = batches.progress(connection, batch)
        assert [(one.kind, one.name) for one in overview.overview(connection).pauses] == [("budget", batch)]
    assert (told.budget_usd, told.held_back) == (1.0, reason)
    assert not ground.write(budgets.change, batch, 2.0)
    assert sorted(ground.claimed()) == sorted(runs[2:])


def test_a_budget_that_comes_later_counts_what_was_spent(ground: Ground) -> None:
    """Expected: the costs that stand in the runs count; a budget above them, or none, holds nothing back."""
    batch = ground.write(batches.create, "helper", "p")
    run, last = ground.submit("t1", batch_id=batch), ground.submit("t2", batch_id=batch)
    ground.boot()
    (claim,) = ground.claim(limit=1)
    ground.settle(claim, DEAR)
    with ground.database.read() as connection:
        assert claim.run_id == run
        assert connection.execute(select(func.count()).select_from(Spending)).scalar_one() == 0
    assert ground.write(budgets.change, batch, 0.6)
    assert ground.claimed() == []
    assert not ground.write(budgets.change, batch, None)
    assert ground.claimed() == [last]
    with pytest.raises(UsageError, match="US dollars, more than 0"):
        ground.write(budgets.change, batch, 0.0)
    with pytest.raises(UsageError, match="no batch 'b0'"):
        ground.write(budgets.change, "b0", 1.0)


def test_the_cost_of_a_response_counts(ground: Ground) -> None:
    """Expected: what a run's steps are known to have cost reaches the budget of its batch."""
    batch = ground.write(batches.create, "helper", "p", None, 0.001)
    ground.submit("t1", batch_id=batch)
    ground.submit("t2", batch_id=batch)
    ground.boot()
    (claim,) = ground.claim(limit=1)
    spent = End(Event.COMPLETE, output_text="done", usage=Usage(10, 10, 0.002))
    ground.settle(claim, spent)
    assert ground.claimed() == []


def test_a_backlog_that_is_held_back_is_not_stepped_over(ground: Ground) -> None:
    """Expected: each statement of a claim goes into an index by the group or takes rows by their ids."""
    fill(ground)
    free = other(ground, "free")
    ground.boot()
    ground.write(pausing.pause, Kind.ASSISTANT, "helper")
    with ground.database.write() as connection:
        with statements(connection) as sent:
            assert [claim.run_id for claim in claiming.claim(connection, "w1", ["default", "slow"], 20)] == [free]
        plans = [plan(connection, statement) for statement in sent]
    assert [told for told in plans if reads_the_whole_table(told)] == []
    assert [told for told in plans if "ix_runwright_runs_claimable" in told] == []
    assert len([told for told in plans if "ix_runwright_runs_begins" in told]) >= 3


def test_a_backlog_without_batches_is_taken_in_the_order_of_the_index(ground: Ground) -> None:
    """Expected: where something else is paused, thousands that may begin are neither all read nor sorted."""
    with ground.database.write() as connection:
        submitting.submit(connection, [ground.new(thread=None) for _ in range(5000)])
    if ground.postgresql:  # SQLite counts its rows only when it is told to, and nothing of ours tells it
        with ground.database.write() as connection:
            connection.execute(text("ANALYZE"))
    ground.boot()
    ground.write(pausing.pause, Kind.QUEUE, "elsewhere")
    with ground.database.write() as connection:
        with statements(connection) as sent:
            assert len(claiming.claim(connection, "w1", ["default"], 20)) == 20
        plans = [plan(connection, statement) for statement in sent]
    assert [told for told in plans if reads_the_whole_table(told)] == []
    begun = [told for told in plans if "ix_runwright_runs_begins" in told]
    assert len(begun) == 2
    assert [told for told in begun if "Sort Key" in told or "TEMP B-TREE" in told] == []


def test_what_a_full_cap_holds_back_hides_nobody(ground: Ground) -> None:
    """Expected: a hundred batches of an assistant that may begin no more leave the others their place in the look."""
    cap(ground, 1)
    ground.boot()
    first = ground.submit("first")
    assert ground.claimed() == [first]
    for number in range(101):
        ground.submit(f"t{number}", batch_id=ground.write(batches.create, "helper", "p"))
    free = other(ground, "free")
    assert ground.claimed() == [free]
