"""How often a transaction waits for PostgreSQL: each time is a way through the network, and a wait for a core there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, exc, func, select, text

from tests.conformance.ground import PLACE, Ground
from worker.models import Thread
from worker.response import Asked, Opened, Usage
from worker.store import database, many, progress, submitting
from worker.store.database import one_trip

Trips = Callable[[], int]


@pytest.fixture
def piped(postgres_url: str) -> Iterator[Ground]:
    """Give a ground whose writes go in one trip; an older server of TEST_DATABASE_URL gets none."""
    ground = Ground(postgres_url)
    with ground.database.read() as connection:
        version = connection.dialect.server_version_info
    if version is None or version < (17,):
        ground.close()
        pytest.skip(f"TEST_DATABASE_URL names PostgreSQL {version}: one before 17 gets no pipeline")
    yield ground
    ground.close()


@contextmanager
def traced(ground: Ground, file: Path) -> Iterator[Trips]:
    """Let libpq write down what it sends; gives how often the client has waited for an answer since it was last asked.

    Every statement that is waited for ends with a Sync, or is a Query of the simple protocol.
    """
    with file.open("wb") as trace:

        def note(connection: Any, _record: object) -> None:
            connection.pgconn.trace(trace.fileno())

        event.listen(ground.database.engine, "connect", note)
        ground.database.close()
        counted = 0

        def trips() -> int:
            nonlocal counted
            lines = [line.split("\t") for line in file.read_text().splitlines()]
            so_far = sum(len(line) > 3 and line[1] == "F" and line[3] in {"Sync", "Query"} for line in lines)
            since, counted = so_far - counted, so_far
            return since

        yield trips
        ground.database.close()


def test_a_commit_waits_for_what_it_reads_and_once_for_what_it_writes(piped: Ground, tmp_path: Path) -> None:
    """Expected: begin, the reads, all writes, the commit, for each unit of a run; a read is one round trip."""
    ground = piped
    with traced(ground, tmp_path / "trace") as trips:
        ground.boot()
        trips()
        ground.submit(None, chosen=False)
        assert trips() == 1 + 1 + 1
        claim = ground.take()
        looks, taking, reading = 3, 3, 2
        assert trips() == 1 + looks + taking + reading + 1 + 1
        ground.commit(claim, progress.set_conversation, Opened("conv_1"), PLACE, None)
        assert trips() == 1 + 2 + 1 + 1
        ground.commit(claim, progress.intend, 0, None)
        assert trips() == 1 + 1 + 1 + 1
        ground.commit(claim, progress.created, 0, "resp_1")
        assert trips() == 1 + 1 + 1 + 1
        asks = [Asked("call_1", "f", "{}")]
        ground.commit(claim, progress.need_tools, step=0, calls=asks, effects={}, usage=Usage(1, 1), last_item="item_1")
        assert trips() == 1 + 2 + 1 + 1
        ground.settle(claim)
        assert trips() == 1 + 3 + 1 + 1
        ground.row(claim.run_id)
        assert trips() == 1


def test_what_is_refused_in_one_trip_is_told_as_any_other_error(ground: Ground) -> None:
    """Expected: the error of SQLAlchemy, nothing is written, and the connection goes on to be used."""

    def twice(connection: Connection) -> None:
        with one_trip(connection):
            many.insert(connection, Thread, [{"id": "one"}])
            many.insert(connection, Thread, [{"id": "one"}])

    with pytest.raises(exc.IntegrityError) as refused:
        ground.write(twice)
    assert "(id)=(one)" not in str(refused.value.statement)
    with ground.database.read() as connection:
        assert connection.execute(select(func.count()).select_from(Thread)).scalar_one() == 0
    for _ in range(12):  # every connection of the pool
        ground.write(lambda connection: connection.execute(text("SELECT 1")).scalar_one())


def test_a_server_that_dies_in_one_trip_is_told_as_one_that_is_away(postgres_url: str) -> None:
    """Expected: OperationalError, for which the pool waits, and the next transaction has a new connection."""
    ground = Ground(postgres_url)

    def killed(connection: Connection) -> None:
        with one_trip(connection):
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            many.insert(connection, Thread, [{"id": "one"}])

    with pytest.raises(exc.OperationalError):
        ground.write(killed)
    ground.submit()
    ground.close()


def test_who_is_frozen_in_one_trip_keeps_nobody_waiting(piped: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: the server ends the transaction, as one that is idle, and others go on with its rows meanwhile."""
    monkeypatch.setattr(database, "_TRIP_MS", 200)

    def other(connection: Connection) -> None:
        connection.execute(text("SET LOCAL lock_timeout = 5000"))
        many.insert(connection, Thread, [{"id": "one"}])

    def frozen(connection: Connection) -> None:
        with one_trip(connection):
            many.insert(connection, Thread, [{"id": "one"}])
            piped.write(other)

    with pytest.raises(exc.OperationalError):
        piped.write(frozen)
    with piped.database.read() as connection:
        assert connection.execute(select(Thread.id)).scalars().all() == ["one"]


def test_a_submit_of_many_takes_the_time_that_it_takes(piped: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: a million runs in one call meet no limit of a transaction: it is for commits of a worker."""
    monkeypatch.setattr(database, "_TRIP_MS", 1)
    piped.write(submitting.submit, [piped.new(None, chosen=False) for _ in range(1000)])


def test_what_a_savepoint_has_taken_back_can_be_sent_again(ground: Ground) -> None:
    """Expected: refused again and again in one transaction that goes on, as by a race, a submit succeeds every time."""

    def submit(connection: Connection) -> None:
        with pytest.raises(exc.IntegrityError):
            submitting.submit(connection, [ground.new(None, batch_id="none")])
        submitting.submit(connection, [ground.new(None)])

    for _ in range(10):
        ground.write(submit)


def test_a_server_that_cannot_end_it_gets_no_pipeline(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: PostgreSQL before 17 is not asked for a timeout that it does not know, and runs are carried."""
    monkeypatch.setattr(database, "_ENDS_TRANSACTIONS", 10**9)
    ground = Ground(postgres_url)

    def look(connection: Connection) -> int:
        with one_trip(connection):
            return int(connection.execute(text("SELECT 1")).scalar_one())  # in a pipeline there would be no row yet

    assert ground.write(look) == 1
    assert ground.status(ground.submit(None, chosen=False)) == "queued"
    ground.close()
