"""What a worker that starts learns of steps which ended before: the same on both databases, whatever has piled up."""

from functools import partial

import pytest
from sqlalchemy import insert, select, update

from tests.conformance.ground import COMPLETE, Ground
from tests.conformance.test_store_plans import plan, statements
from worker.dbtime import from_now
from worker.lifecycle import Event
from worker.models import EventRow
from worker.response import Asked, Usage
from worker.run.looks import Looks
from worker.store import assistants, durations, progress
from worker.store.settling import End

CALL = Asked("call_1", "peek", "{}")


def age(ground: Ground, run_id: str, *seconds: float) -> None:
    """Make the events of a run which tell of its steps so many seconds old, in their order."""
    told = ("created", "requires_action", "completed", "failed")
    with ground.database.write() as connection:
        ids = select(EventRow.id).where(EventRow.run_id == run_id, EventRow.name.in_(told)).order_by(EventRow.id)
        for ident, ago in zip(connection.execute(ids).scalars().all(), seconds, strict=True):
            connection.execute(update(EventRow).where(EventRow.id == ident).values(at=from_now(-ago)))


def carry(ground: Ground, *, fails: bool = False) -> str:
    """Carry a run through a step that asks for a tool and one that ends it."""
    run_id = ground.submit(None)
    claim = ground.take()
    ground.commit(claim, progress.created, 0, f"resp_{run_id}_0")
    asked = partial(progress.need_tools, step=0, calls=[CALL], effects={"peek": "read"}, usage=Usage(), last_item=None)
    ground.commit(claim, asked)
    ground.commit(claim, progress.created, 1, f"resp_{run_id}_1")
    ground.settle(claim, End(Event.FAIL, error_code="x") if fails else COMPLETE)
    return run_id


def newest(ground: Ground) -> list[tuple[tuple[str, bool], float]]:
    """Return what a worker would learn, in tenths of a second."""
    with ground.database.read() as connection:
        return [(kind, round(seconds, 1)) for kind, seconds in durations.newest(connection)]


def test_a_new_worker_waits_as_long_as_the_ones_before(ground: Ground) -> None:
    """Expected: first and later steps by assistant, from created to the end; what failed tells nothing."""
    ground.boot()
    age(ground, carry(ground), 100, 40, 30, 10)
    ground.assistant_id = ground.write(assistants.apply, "other", {"model": "m"})[0].id
    age(ground, carry(ground, fails=True), 9, 8, 7, 1)
    assert newest(ground) == [(("helper", False), 60.0), (("helper", True), 20.0), (("other", False), 1.0)]
    looks, unseeded = Looks(0.05, 30.0, 64), Looks(0.05, 30.0, 64)
    looks.seed(newest(ground) * 20)
    known, unknown = (worker.table(("helper", False)) for worker in (looks, unseeded))
    assert known.pause(20.0, 0.02, 30) > 3 * unknown.pause(20.0, 0.02, 30)


def test_learning_reads_the_newest_events_and_no_others(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: of many events, those before the newest are stepped over by the primary key."""
    monkeypatch.setattr(durations, "_EVENTS", 100)
    ground.boot()
    run_id = carry(ground)
    rows = [{"run_id": run_id, "attempt": 1, "name": "tool_finished", "data": {}} for _ in range(5000)]
    with ground.database.write() as connection:
        connection.execute(insert(EventRow), rows)
        connection.exec_driver_sql("ANALYZE")
    assert newest(ground) == []
    with ground.database.read() as connection:
        with statements(connection) as sent:
            durations.newest(connection)
        (told,) = [plan(connection, statement) for statement in sent]
    assert "SCAN runwright_events" not in told
    assert "Seq Scan on runwright_events" not in told
