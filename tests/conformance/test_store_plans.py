"""The claim and the passing of a turn step over no backlog: both databases take the partial indexes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, case, event, func, literal, select, text, true, update

from tests.conformance.ground import Ground
from worker.dbtime import from_now
from worker.lifecycle import Status
from worker.models import Run
from worker.store import claiming, leases, locks, submitting

Statement = tuple[str, Any]


def fill(ground: Ground) -> None:
    """Make some thousands of runs: most have ended, the rest waits behind 300 turns, most of those not yet due."""
    runs = [ground.new(f"t{n % 300:03}", queue="slow" if n % 3 else "default") for n in range(6000)]
    ended = case((Run.seq <= 15, literal(Status.COMPLETED.value)), else_=Run.status)
    holds = Run.seq == 16
    due = case((Run.thread_id < "t030", from_now(-1)), else_=from_now(3600))
    with ground.database.write() as connection:
        submitting.submit(connection, runs)
        connection.execute(update(Run).where(Run.seq <= 15).values(status=ended, turn=False, due_at=None))
        connection.execute(update(Run).where(holds).values(turn=true(), due_at=due))
    with ground.database.write() as connection:
        connection.execute(text("ANALYZE"))


@contextmanager
def statements(connection: Connection) -> Iterator[list[Statement]]:
    """Collect what is sent to the database about runs."""
    sent: list[Statement] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        if "runwright_runs" in statement and not statement.lstrip().startswith("INSERT"):
            sent.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    yield sent
    event.remove(connection, "before_cursor_execute", note)


def plan(connection: Connection, statement: Statement) -> str:
    """Return how the database would carry the statement out."""
    explain = "EXPLAIN" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    rows = connection.exec_driver_sql(f"{explain} {statement[0]}", statement[1])
    return "\n".join(str(row[-1]) for row in rows)


def reads_the_whole_table(told: str) -> bool:
    """Say whether a plan goes through every run."""
    lines = [line.strip() for line in told.splitlines()]
    return any(line.startswith("SCAN runwright_runs") or "Seq Scan on runwright_runs" in line for line in lines)


def test_the_claim_takes_the_claimable_index(ground: Ground) -> None:
    """Expected: the look for due levels and both takings use one; no statement of a claim reads every run."""
    fill(ground)
    ground.boot()
    with ground.database.write() as connection:
        with statements(connection) as sent:
            assert len(claiming.claim(connection, "w1", ["default", "slow"], 20)) == 20
        plans = [plan(connection, statement) for statement in sent]
    look, *takes, _load = plans
    assert len(takes) == 4  # first what goes on of each queue, then what begins
    for told in (look, *takes[2:]):
        assert "ix_runwright_runs_claimable" in told
    for told in takes[:2]:
        assert "ix_runwright_runs_goes_on" in told
    assert [told for told in plans if reads_the_whole_table(told)] == []


def test_passing_the_turn_on_takes_the_waiting_index(ground: Ground) -> None:
    """Expected: finding the first that waits reads the thread's line, not the thread's history."""
    fill(ground)
    with ground.database.write() as connection:
        connection.execute(update(Run).where(Run.thread_id == "t042", Run.turn).values(turn=False, status="completed"))
        with statements(connection) as sent:
            locks.pass_on(connection, "t042")
        look, change = [plan(connection, statement) for statement in sent]
        seq = connection.execute(select(Run.seq).where(Run.thread_id == "t042", Run.turn)).scalar_one()
    assert seq == 17
    assert "ix_runwright_runs_waiting" in look
    assert not reads_the_whole_table(look)
    assert not reads_the_whole_table(change)


def test_the_reaper_takes_the_owner_index(ground: Ground) -> None:
    """Expected: the runs of a dead worker are found by their owner."""
    fill(ground)
    ground.boot()
    ground.claim(limit=5)
    ground.end_lease()
    with ground.database.write() as connection:
        with statements(connection) as sent:
            assert leases.reap(connection) == 5
        (told,) = [plan(connection, statement) for statement in sent]
    assert "ix_runwright_runs_owner" in told
    assert not reads_the_whole_table(told)


def test_a_look_in_vain_is_as_cheap(ground: Ground) -> None:
    """Expected: with thousands waiting and nothing due, the idle look of an engine reads no backlog."""
    fill(ground)
    with ground.database.write() as connection:
        connection.execute(update(Run).where(Run.turn).values(due_at=from_now(3600)))
        waiting = connection.execute(select(func.count()).where(Run.status == "queued")).scalar_one()
        with statements(connection) as sent:
            assert not claiming.still_due(connection, ["default", "slow"])
        (told,) = [plan(connection, statement) for statement in sent]
    assert waiting == 1500
    assert "ix_runwright_runs_claimable" in told
    assert not reads_the_whole_table(told)


def test_due_queues_are_found_in_steps(ground: Ground) -> None:
    """Expected: the look that rings for due queues reads an index for each queue, however many runs are due there."""
    fill(ground)
    with ground.database.write() as connection:
        with statements(connection) as sent:
            assert claiming.due_queues(connection) == ["default", "slow"]
        told = [plan(connection, statement) for statement in sent]
    assert not any(map(reads_the_whole_table, told))
    assert not any("DISTINCT" in statement for statement, _ in sent)
