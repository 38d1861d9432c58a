"""The link to Redis: short limits, and silence for some seconds after it has failed."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any, TypeVar

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

T = TypeVar("T")
_log = structlog.get_logger(__name__)
_PATIENCE = 0.5  # seconds; who waits for a place waits for this too
_AGAIN = 5.0  # seconds until the next try


class Link:
    """Shared by all gates of a worker; belongs to its loop."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._up = True
        self._again_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Return what Redis answers, None where it does not; the first failure and the return are logged."""
        if monotonic() < self._again_at:
            return None
        try:
            async with asyncio.timeout(_PATIENCE):
                answer = await call()
        except (RedisError, OSError, TimeoutError) as error:
            self._again_at = monotonic() + _AGAIN
            if self._up:
                _log.warning("limits_alone", error=type(error).__name__)
            self._up = False
            return None
        if not self._up:
            _log.info("limits_shared_again")
        self._up = True
        return answer

    def tell(self, call: Callable[[], Awaitable[None]]) -> None:
        """Let Redis know, some time; nobody waits for it."""
        self.spawn(self._told(call))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a task that ends with the link."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End everything that goes on, and the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.redis.aclose()

    async def _told(self, call: Callable[[], Awaitable[None]]) -> None:
        await self.ask(call)
