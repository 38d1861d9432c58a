"""How a worker claims beside others: it lets rings gather, and leaves the others their part of a burst for a moment."""

import asyncio

_GATHER = 0.02  # seconds


class Share:
    """How much of its limit a worker takes now."""

    def __init__(self, patience: float) -> None:
        """Wait for others so many seconds at most."""
        self._patience = patience
        self._since: float | None = None

    def of(self, limit: int, part: int | None, now: float) -> int:
        """Return the part, or all of the limit where the others have not come; `now` is a clock in seconds."""
        if part is None or part >= limit:
            self._since = None
            return part or 0
        if self._since is None:
            self._since = now
        elif now - self._since > self._patience:
            self._since = None
            return limit
        return part


async def rung(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, at most so long, and for what comes directly behind it: a claim of ten costs hardly more."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
    await asyncio.sleep(_GATHER)
