"""Runs that nobody drives any more: those of workers that are gone, and our own that a lost answer has left behind."""

from collections.abc import Collection
from time import monotonic

import structlog

from worker.lease import Lease
from worker.parts import Parts
from worker.pool import StorePool
from worker.store import leases

_log = structlog.get_logger(__name__)


class Reaper:
    """Makes the runs of dead workers due; asks the database only when a lease may have run out."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._next_look = 0.0

    async def reap(self, lease: Lease) -> int:
        """Return how many runs were made due; none while our own lease does not hold."""
        if not lease.valid() or monotonic() < self._next_look:
            return 0
        left = await self._parts.store.read(leases.soonest_end)
        if left > 0:
            self._next_look = monotonic() + min(left, self._parts.settings.lease)
            return 0
        if count := await self._parts.store.write(leases.reap, lease.settled, self._parts.settings.lease):
            self._parts.events.emit("worker.reaped", runs=count)
        return count


class Strays:
    """Runs that are ours in the table and that nobody drives: the answer to their claim was lost."""

    def __init__(self, store: StorePool) -> None:
        self._store = store
        self._suspects: set[str] = set()

    async def release(self, worker: str, driven: Collection[str]) -> bool:
        """Let go of those that are seen so twice: a claim that is committing now has its runner a moment later."""
        suspects = (await self._store.read(leases.owned, worker)).difference(driven)
        if strays := suspects & self._suspects:
            count = await self._store.write(leases.release, worker, strays)
            _log.warning("strays_released", runs=count)
        self._suspects = suspects
        return bool(strays)
