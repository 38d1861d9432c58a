"""What stands where: each run that has not ended is counted once, and no count reads what has ended."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, text, update

from tests.conformance.ground import Ground
from tests.conformance.test_store_plans import fill, plan, reads_the_whole_table, statements
from worker.dbtime import from_now
from worker.lifecycle import Event
from worker.models import Outgoing, Run, ToolCall
from worker.store import leases, overview, pausing, progress, settling
from worker.store.pausing import Kind
from worker.store.settling import End


def look(ground: Ground) -> overview.Overview:
    with ground.database.read() as connection:
        return overview.overview(connection)


def change(ground: Ground, run_id: str, **values: Any) -> None:
    with ground.database.write() as connection:
        connection.execute(update(Run).where(Run.id == run_id).values(**values))


def failure(code: str) -> End:
    return End(Event.FAIL, error_code=code, error_message="no")


@pytest.fixture
def standing(ground: Ground) -> Ground:
    """Give a ground with one run of each kind in `default`, and a due one in a queue that nobody serves."""
    ground.boot("w1")
    ground.boot("dead", queues=["other"])
    ground.end_lease("dead")
    for thread in ("held", "parked", "ended"):
        ground.submit(thread)
    claims = {claim.thread_id: claim for claim in ground.claim()}
    ground.settle(claims["ended"])
    change(ground, claims["parked"].run_id, owner=None, due_at=from_now(3600))
    due = ground.submit("due")
    ground.submit("due")
    change(ground, due, due_at=from_now(-60))
    ground.submit("later", available_at=ground.now() + timedelta(hours=1))
    ground.submit("unserved", queue="other")
    return ground


def test_each_run_is_counted_once_where_it_stands(standing: Ground) -> None:
    """Due, later, parked, waiting and in flight; the age of the oldest; workers with a living lease per queue."""
    default, other = look(standing).queues
    assert (default.queue, default.due, default.later, default.parked) == ("default", 1, 1, 1)
    assert (default.waiting, default.in_flight, default.paused, default.workers) == (1, 1, 0, 1)
    assert 59 < (default.oldest_due_seconds or 0) < 90
    assert (other.queue, other.due, other.workers) == ("other", 1, 0)


def test_a_paused_backlog_is_not_due(standing: Ground) -> None:
    """It is counted as paused, so that no alarm rings for what somebody holds back."""
    standing.write(pausing.pause, Kind.QUEUE, "default", "maintenance")
    default = next(one for one in look(standing).queues if one.queue == "default")
    assert (default.due, default.oldest_due_seconds, default.paused, default.later) == (0, None, 1, 1)


def test_workers_show_what_they_hold_and_their_lease(standing: Ground) -> None:
    """The one whose lease ran out shows how long ago."""
    workers = {one.id: one for one in look(standing).workers}
    assert (workers["w1"].held, workers["w1"].max_in_flight, workers["w1"].http) == (1, 10, None)
    assert 500 < workers["w1"].lease_seconds <= 600
    assert workers["dead"].lease_seconds < 0


def test_a_worker_shows_where_it_answers(ground: Ground) -> None:
    """The address that it was registered with."""
    options: dict[str, Any] = {"node": "n", "pid": 1, "queues": ["default"], "room": 1, "lease": 60.0}
    ground.write(leases.register, "w1", **options, http="http://127.0.0.1:9808")
    assert [one.http for one in look(ground).workers] == ["http://127.0.0.1:9808"]


def test_errors_of_the_last_hour_are_counted_by_code(ground: Ground) -> None:
    """Ends, further attempts and refusals apart, the most frequent first; a completed run is none.

    What the provider has refused is asked again: in an outage no run has ended.
    """
    ground.boot()
    for thread in ("a", "b", "c", "d", "e"):
        ground.submit(thread)
    a, b, c, d, e = ground.claim()
    ground.settle(a, failure("bad_answer"))
    ground.settle(b, failure("server_error"))
    ground.commit(c, settling.retry, 300.0, failure("server_error"), 60.0)
    ground.settle(d)
    ground.commit(e, progress.refused, "bad_gateway", 3)
    ground.commit(e, progress.refused, None, 4)
    told = look(ground)
    counted = [(one.code, one.ended, one.retried, one.refused) for one in told.errors]
    assert counted == [("server_error", 1, 1, 0), ("bad_answer", 1, 0, 0), ("bad_gateway", 0, 0, 1)]
    assert told.at - told.errors_since == pytest.approx(timedelta(hours=1), abs=timedelta(seconds=5))


def test_questions_and_what_is_to_be_told_are_counted(ground: Ground) -> None:
    """A question of a run that has ended is nobody's any more."""
    ground.boot()
    for thread in ("asks", "ended"):
        ground.submit(thread)
    asks, ended = ground.claim()
    ground.settle(ended)
    call = {"step": 0, "position": 0, "attempt": 1, "name": "pay", "arguments": "{}", "status": "asked"}
    with ground.database.write() as connection:
        for run_id in (asks.run_id, ended.run_id):
            asked = {"run_id": run_id, "call_id": "c1", "question": "approval", "decide_by": from_now(60)}
            connection.execute(insert(ToolCall).values(**call, **asked))
        old = {"kind": "run", "subject": ended.run_id, "payload": {}, "created_at": from_now(-120)}
        connection.execute(insert(Outgoing).values(**old))
    told = look(ground)
    assert (told.questions, told.outbox) == ({"approval": 1}, {"run": 1})
    assert 119 < (told.outbox_oldest_seconds or 0) < 150


def test_an_empty_database_has_an_overview(ground: Ground) -> None:
    """Nothing is counted and nothing fails."""
    told = look(ground)
    assert (told.queues, told.workers, told.errors, told.outbox, told.outbox_oldest_seconds) == ([], [], [], {}, None)


@pytest.mark.parametrize("pauses", [False, True])
def test_the_overview_reads_no_history(ground: Ground, pauses: bool) -> None:
    """With thousands of ended runs every count goes by a partial index, also while something is paused."""
    fill(ground)
    ground.boot()
    ground.claim(limit=5)
    with ground.database.write() as connection:
        # Where a fourth of all runs waits, PostgreSQL rightly reads them all.
        connection.execute(update(Run).where(Run.seq > 17).values(status="completed"))
    with ground.database.write() as connection:
        connection.execute(text("ANALYZE"))
    if pauses:
        ground.write(pausing.pause, Kind.QUEUE, "slow")
        ground.write(pausing.pause, Kind.ASSISTANT, "helper")
    with ground.database.write() as connection:
        if ground.postgresql:  # as on a disk without a head to move; its default finds 6,000 rows cheap to read
            connection.execute(text("SET LOCAL random_page_cost = 1.1"))
        with statements(connection) as sent:
            overview.overview(connection)
            overview.due(connection)
        plans = [plan(connection, statement) for statement in sent]
    assert len(plans) >= 7
    # SQLite calls the walk through a whole partial index a scan as well.
    whole = [told for told in plans if reads_the_whole_table(told) and "USING INDEX ix_runwright_runs_" not in told]
    assert whole == []
