"""The bounded threads through which the loop calls the store: the store is synchronous and written only once."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec, TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from worker.crashpoints import reach
from worker.retries import backoff
from worker.store.database import UNUSABLE, Database, explain

P = ParamSpec("P")
T = TypeVar("T")
_log = structlog.get_logger(__name__)
_LONGEST_WAIT = 5.0
# InternalError is also what a standby says that a failover has not yet promoted.
_PASSING = (OperationalError, InterfaceError, InternalError, PoolTimeout)


class StorePool:
    """Runs one unit of the store after another in each thread; a database that is away is waited for."""

    def __init__(self, database: Database, threads: int) -> None:
        """Use one thread on SQLite: it has one writer at a time, and queueing here is cheaper than its lock."""
        self._database = database
        count = 1 if database.engine.dialect.name == "sqlite" else threads
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="store")

    async def write(self, unit: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the unit in a transaction of its own and return after its commit.

        A unit may be repeated after an unclear commit: each finds its claim gone, or that its work is done.
        """
        return await self._patiently(self._database.write, unit, args, kwargs)

    async def read(self, unit: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the unit on a snapshot, without the lock that writers take."""
        return await self._patiently(self._database.read, unit, args, kwargs)

    async def _patiently(
        self,
        transaction: Callable[[], AbstractContextManager[Connection]],
        unit: Callable[..., T],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> T:
        kind = "commit" if transaction == self._database.write else "read"

        def whole() -> T:
            reach(f"{kind}.{unit.__name__}.before")
            with transaction() as connection:
                result = unit(connection, *args, **kwargs)
            reach(f"{kind}.{unit.__name__}.after")
            return result

        failures = 0
        while True:
            try:
                # Shielded: what a runner has begun to write is written, also when the runner is cancelled.
                work = asyncio.get_running_loop().run_in_executor(self._pool, whole)
                work.add_done_callback(_seen)
                return await asyncio.shield(work)
            except _PASSING as error:
                if _is_a_mistake(error):
                    raise
                failures += 1
                wait = backoff(failures, 0.1, _LONGEST_WAIT)
                _log.warning("database_waits", error=_said(error), failures=failures, seconds=round(wait, 1))
                await asyncio.sleep(wait)

    def close(self) -> None:
        """Let the threads end; one that hangs in a database that does not answer is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _seen(work: asyncio.Future[Any]) -> None:
    """Take note of how a unit ended whose runner is gone: asyncio would log its error as one that nobody saw."""
    if not work.cancelled():
        work.exception()


def _is_a_mistake(error: SQLAlchemyError) -> bool:
    """Tell SQLite's answer to wrong SQL, such as a missing column, from a database that is busy or away."""
    cause = error.orig if isinstance(error, DBAPIError) else None
    return isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR


def _said(error: SQLAlchemyError) -> str:
    return explain(error).removeprefix(UNUSABLE)
