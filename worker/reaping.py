"""Runs that nobody drives any more: those of workers that are gone, and our own that a lost answer has left behind."""

from collections.abc import Collection

import structlog

from worker.lease import Lease
from worker.parts import Parts
from worker.pool import StorePool
from worker.store import leases

_log = structlog.get_logger(__name__)


async def reap(parts: Parts, lease: Lease) -> int:
    """Make the runs of dead workers due, while our own lease holds, and return how many there were."""
    if not (lease.valid() and await parts.store.read(leases.any_dead)):
        return 0
    if count := await parts.store.write(leases.reap, lease.settled, parts.settings.lease):
        parts.events.emit("worker.reaped", runs=count)
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
