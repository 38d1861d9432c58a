"""The threads that call the store: a database that is away is waited for, a mistake of ours is not."""

import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from tests.conformance.ground import Ground
from worker.pool import StorePool
from worker.store import held, progress
from worker.store.database import Database
from worker.store.held import Job, Outcome


def unit(connection: Connection) -> int:
    return int(connection.execute(text("SELECT 7")).scalar_one())


def test_wrong_sql_is_raised_at_once(sqlite_url: str) -> None:
    """A missing column never comes by waiting: whoever asked for it fails, and the log says why.

    Expected: the error that PostgreSQL makes of it, which neither this pool nor the task `runs.submit` repeats.
    """

    def wrong(connection: Connection) -> None:
        connection.execute(text("SELECT no_such_column FROM runwright_runs"))

    async def story() -> None:
        await StorePool(Database(sqlite_url), 1).write(wrong)

    with pytest.raises(ProgrammingError, match="no_such_column"):
        asyncio.run(story())


def test_a_busy_database_is_waited_for(sqlite_url: str) -> None:
    """A unit that finds the database locked goes through as soon as the other writer has let go."""
    database = Database(sqlite_url)
    with database.engine.connect() as connection:  # the pool keeps it: its next unit fails at once and not in 30 s
        connection.exec_driver_sql("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")

    async def story() -> tuple[bool, int]:
        waiting = asyncio.create_task(StorePool(database, 1).write(unit))
        early, _ = await asyncio.wait({waiting}, timeout=0.3)
        other.execute("COMMIT")
        return bool(early), await asyncio.wait_for(waiting, 10)

    try:
        assert asyncio.run(story()) == (False, 7)
    finally:
        other.close()
        database.close()


def test_a_commit_that_waits_for_a_lock_holds_up_nobody_else(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: after a commit that failed for all, one of them waits alone, and another run's commit goes through."""
    ground = Ground(sqlite_url)
    ground.boot()
    for thread in ("a", "b", "c"):
        ground.submit(thread)
    waits, spoils, passes = ground.claim()
    released, waiting = threading.Event(), threading.Event()

    def carry_out(_connection: Connection, jobs: list[Job], *, alone: bool = False) -> list[Outcome]:
        if len(jobs) > 1:
            raise IntegrityError("spoilt", {}, Exception())
        if alone and jobs[0].claim is waits:
            waiting.set()
            released.wait(10)
        return [Outcome(None)]

    monkeypatch.setattr(held, "carry_out", carry_out)
    # SQLite has one lock for all: here only the store's threads and the order of commits are looked at.
    monkeypatch.setattr(ground.database, "write", nullcontext)
    pool = StorePool(ground.database, 4)
    pool._pool = ThreadPoolExecutor(4)  # as on PostgreSQL: SQLite has one thread, and no row that is locked
    pool._beside = asyncio.Semaphore(2)

    async def story() -> None:
        async with asyncio.timeout(20):
            both = [asyncio.create_task(pool.commit(claim, progress.withdraw)) for claim in (waits, spoils)]
            assert await asyncio.to_thread(waiting.wait, 10)
            try:
                async with asyncio.timeout(5):  # half of what the one that waits would take
                    await pool.commit(passes, progress.withdraw)
            finally:
                released.set()
            await asyncio.gather(*both)

    asyncio.run(story())
    ground.close()


def test_units_of_several_runs_wait_for_company(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: what comes shortly after another run's commit goes together; what one run writes alone goes at once."""
    ground = Ground(sqlite_url)
    ground.boot()
    for thread in ("a", "b", "c"):
        ground.submit(thread)
    first, second, third = ground.claim()
    commits: list[int] = []

    def carry_out(_connection: Connection, jobs: list[Job], *, alone: bool = False) -> list[Outcome]:
        commits.append(len(jobs))
        return [Outcome(None) for _ in jobs]

    monkeypatch.setattr(held, "carry_out", carry_out)
    pool = StorePool(ground.database, 1)

    async def story() -> None:
        monkeypatch.setattr("worker.pool._GATHER", 3600.0)
        async with asyncio.timeout(10):
            for _ in range(3):
                await pool.commit(first, progress.withdraw)
        monkeypatch.setattr("worker.pool._GATHER", 0.5)
        async with asyncio.timeout(10):
            early = asyncio.create_task(pool.commit(second, progress.withdraw))
            await asyncio.sleep(0)  # it waits already
            await asyncio.gather(early, pool.commit(third, progress.withdraw))

    asyncio.run(story())
    ground.close()
    assert commits == [1, 1, 1, 2]
