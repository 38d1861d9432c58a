"""Whether the provider is away, as all runs of a worker see it: the first request that passes calls the others back."""

import asyncio
import random
from time import monotonic

_SILENCE = 5.0  # seconds without one request that passed: single failures among successes are no outage
_SPREAD = 10.0  # seconds over which the runs come back


class Outage:
    """Shared by the runs of one worker; belongs to its loop."""

    def __init__(self) -> None:
        self._passed_at = monotonic()
        self._over = asyncio.Event()
        self._away = False

    def passed(self) -> None:
        """Note that the provider has answered."""
        self._passed_at = monotonic()
        if self._away:
            self._away = False
            self._over.set()

    def failed(self) -> None:
        """Note that it did not."""
        if not self._away and monotonic() - self._passed_at > _SILENCE:
            self._away, self._over = True, asyncio.Event()

    async def over(self) -> None:
        """Return some moments after the end of the outage, each caller at a time of its own; never without one."""
        if not self._away:
            await asyncio.Event().wait()
        await self._over.wait()
        await asyncio.sleep(random.uniform(0, _SPREAD))
