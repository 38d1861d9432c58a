"""The engine's way to the store, off its loop: units in bounded threads, and those of held runs committed together."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from time import monotonic
from typing import Any, Concatenate, ParamSpec, TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from worker.crashpoints import reach
from worker.retries import backoff
from worker.store import held
from worker.store.claiming import Claim
from worker.store.database import PASSING, UNUSABLE, Database, explain
from worker.store.held import Busy, Hold, Job, Outcome

P = ParamSpec("P")
T = TypeVar("T")
_log = structlog.get_logger(__name__)
_LONGEST_WAIT = 5.0
_MOST = 500  # units in one commit
_CROWD = 250  # that wait for the next one
_GATHER = 0.003  # seconds that units wait for those of other runs, where some have come shortly before
_SHORTLY = 0.05
_Waiting = tuple[Job, asyncio.Future[Any]]


class StorePool:
    """Runs units of the store in its threads; a database that is away is waited for."""

    def __init__(self, database: Database, threads: int) -> None:
        """Use one thread on SQLite: it has one writer at a time, and queueing here is cheaper than its lock."""
        self._database = database
        count = 1 if database.engine.dialect.name == "sqlite" else threads
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="store")
        self._waiting: list[_Waiting] = []
        self._committing: asyncio.Task[None] | None = None
        self._committed: set[str] = set()  # the runs of the newest commit
        self._committed_at = 0.0
        self._lonely: set[asyncio.Task[None]] = set()
        # Those that wait for somebody's lock leave threads for claims and for the commits of the others.
        self._beside = asyncio.Semaphore(max(1, count - 2))

    async def write(self, unit: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the unit in a transaction of its own and return after its commit.

        A unit may be repeated after an unclear commit: each finds its claim gone, or that its work is done.
        """

        def whole(connection: Connection) -> T:
            return unit(connection, *args, **kwargs)

        return await self._patiently(self._database.write, whole, [f"commit.{unit.__name__}"])

    async def read(self, unit: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the unit on a snapshot, without the lock that writers take."""

        def whole(connection: Connection) -> T:
            return unit(connection, *args, **kwargs)

        return await self._patiently(self._database.read, whole, [f"read.{unit.__name__}"])

    async def commit(
        self, claim: Claim, unit: Callable[Concatenate[Hold, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Carry out a unit of a held run together with those that wait, and return after their commit.

        Raises LostClaim, and what the unit raises; a caller that is cancelled meanwhile has written all the same.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((Job(claim, unit, args, kwargs), done))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all(), name="commits")
        return await done

    @property
    def crowded(self) -> bool:
        """Whether so many runs wait for a commit that more would only take memory."""
        return len(self._waiting) >= _CROWD

    async def _commit_all(self) -> None:
        """Commit what waits until nothing does; what comes meanwhile gathers for the next commit."""
        try:
            while self._waiting:
                if self._others_may_come():
                    await asyncio.sleep(_GATHER)
                chosen = self._choose()
                await self._commit(chosen)
                self._committed = {job.claim.run_id for job, _ in chosen}
                self._committed_at = monotonic()
        finally:
            self._committing = None

    def _others_may_come(self) -> bool:
        """Tell whether to wait for company: a commit of one unit costs as much as one of ten, and ten of one far more.

        What a run writes step by step, while no other does, goes at once.
        """
        others = any(job.claim.run_id not in self._committed for job, _ in self._waiting)
        return others and monotonic() - self._committed_at < _SHORTLY

    def _choose(self) -> list[_Waiting]:
        """Take what goes into one commit: of each run only the first, since what it writes builds on its row."""
        chosen: dict[str, _Waiting] = {}
        left = []
        for one in self._waiting:
            if len(chosen) < _MOST and one[0].claim.run_id not in chosen:
                chosen[one[0].claim.run_id] = one
            else:
                left.append(one)
        self._waiting = left
        return list(chosen.values())

    async def _commit(self, waiting: Sequence[_Waiting], *, alone: bool = False) -> None:
        """Commit these jobs and tell their callers; what cannot go with the others is carried out alone."""
        jobs = [job for job, _ in waiting]

        def whole(connection: Connection) -> list[Outcome]:
            return held.carry_out(connection, jobs, alone=alone)

        points = [f"commit.{job.unit.__name__}" for job in jobs]
        try:
            outcomes = await self._patiently(self._database.write, whole, points)
        except Exception as error:  # noqa: BLE001 - it is told to those whom it concerns
            if len(jobs) == 1:
                _tell(waiting[0][1], Outcome(error=error))
            else:  # one of them spoils it for all: each on its own
                for one in waiting:
                    self._alone(one)
            return
        for one, outcome in zip(waiting, outcomes, strict=True):
            if isinstance(outcome.error, Busy):
                self._alone(one)
            else:
                _tell(one[1], outcome)

    def _alone(self, one: _Waiting) -> None:
        """Carry out a job that waits for somebody else's transaction, beside the commits of the others."""

        async def commit() -> None:
            async with self._beside:
                await self._commit([one], alone=True)

        task = asyncio.create_task(commit(), name="commit-alone")
        self._lonely.add(task)
        task.add_done_callback(self._lonely.discard)

    async def _patiently(
        self,
        transaction: Callable[[], AbstractContextManager[Connection]],
        unit: Callable[[Connection], T],
        points: Sequence[str],
    ) -> T:
        def whole() -> T:
            for point in points:
                reach(f"{point}.before")
            with transaction() as connection:
                result = unit(connection)
            for point in points:
                reach(f"{point}.after")
            return result

        failures = 0
        while True:
            try:
                # Shielded: what a runner has begun to write is written, also when the runner is cancelled.
                work = asyncio.get_running_loop().run_in_executor(self._pool, whole)
                work.add_done_callback(_seen)
                return await asyncio.shield(work)
            except PASSING as error:
                failures += 1
                wait = backoff(failures, 0.1, _LONGEST_WAIT)
                _log.warning("database_waits", error=_said(error), failures=failures, seconds=round(wait, 1))
                await asyncio.sleep(wait)

    async def finish(self, seconds: float) -> None:
        """Wait for the commits under way, also those whose callers were cancelled, for so long at most."""
        if under_way := {*self._lonely, *([self._committing] if self._committing else ())}:
            await asyncio.wait(under_way, timeout=seconds)

    def close(self) -> None:
        """Let the threads end; one that hangs in a database that does not answer is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _tell(done: asyncio.Future[Any], outcome: Outcome) -> None:
    """Wake the caller; one that was cancelled does not wait any more."""
    if done.done():
        return
    if outcome.error is None:
        done.set_result(outcome.result)
    else:
        done.set_exception(outcome.error)


def _seen(work: asyncio.Future[Any]) -> None:
    """Take note of how a unit ended whose runner is gone: asyncio would log its error as one that nobody saw."""
    if not work.cancelled():
        work.exception()


def _said(error: SQLAlchemyError) -> str:
    return explain(error).removeprefix(UNUSABLE)
