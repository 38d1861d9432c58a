"""The buckets in Redis that all workers draw from; whoever calls has to expect a Redis that is away."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from redis.asyncio import Redis

from worker.limits import scripts
from worker.limits.asking import Ask, Given, Left, Limits

_MICRO = 1e-6


class Shared:
    """The operations on one (server, key, model); the names in Redis hold a hash of all three."""

    def __init__(self, redis: Redis, worker: str, server: str, key: str, model: str) -> None:
        name = hashlib.sha256(f"{server}\0{key}\0{model}".encode()).hexdigest()[:32]
        self._worker = worker
        # Braces: on a cluster all three stand on one node.
        self._keys = [f"runwright:limits:{{{name}}}{part}" for part in ("", ":runs", ":workers")]
        self._reserve = redis.register_script(scripts.RESERVE)
        self._settle = redis.register_script(scripts.SETTLE)
        self._refused = redis.register_script(scripts.REFUSED)
        self._learn = redis.register_script(scripts.LEARN)
        self._renew = redis.register_script(scripts.RENEW)

    async def reserve(self, set_limits: Limits, left: Left, asks: Sequence[Ask]) -> Given:
        """Take what there is for the first of these creates, none out of turn; without asks only look."""
        told = ("" if value is None else value for value in (left.requests, left.tokens))
        creates = (part for ask in asks for part in (ask.run_id, ask.tokens, int(ask.bulk)))
        answer = await self._call(self._reserve, [self._worker, *set_limits, *told, *creates])
        wait, requests, tokens, workers, *delays = map(int, answer)
        return Given([delay * _MICRO for delay in delays], wait * _MICRO, Limits(requests, tokens), workers)

    async def settle(self, run_id: str, requests: int, tokens: int) -> None:
        """Give back what was reserved and not used, and the run's place if it is named."""
        await self._call(self._settle, [run_id, requests, tokens])

    async def refused(self, seconds: float) -> None:
        """Hold all workers back for so long, and slow them down for a while."""
        await self._call(self._refused, [f"{seconds:.6f}"])

    async def learn(self, limits: Limits) -> None:
        """Tell all workers what the provider says are its limits."""
        await self._call(self._learn, [limits.requests, limits.tokens])

    async def renew(self, run_ids: Iterable[str]) -> None:
        """Keep the places of runs that still go on at the provider."""
        await self._call(self._renew, list(run_ids))

    async def _call(self, script: Any, arguments: list[Any]) -> Any:
        return await script(keys=self._keys, args=arguments)
