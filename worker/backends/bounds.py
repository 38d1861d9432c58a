"""How many may be at something at once at one server, and who waits for that: with a task, or without one."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Literal

_STUCK = 2.0  # seconds
_CROWD = 4  # for each place
_CROWD_LOOK = 0.05


class Bound(asyncio.Semaphore):
    """How many may be at something at once, and how many wait for that."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self._crowd = _CROWD * value
        self._waiting = 0
        self._moved_at = 0.0

    @property
    def crowded(self) -> bool:
        """Whether so many wait that more would only take memory; not where nobody's turn comes, as at a dead server."""
        return self._waiting >= self._crowd and monotonic() - self._moved_at < _STUCK

    async def acquire(self) -> Literal[True]:
        """Wait for a place, and take it."""
        self._waiting += 1
        try:
            await super().acquire()
        finally:
            self._waiting -= 1
        self._moved_at = monotonic()
        return True


class Readers(asyncio.Semaphore):
    """How many may read at once, and a line of those that are called when there is a place, in place of waiting for it.

    Thousands of runs can be due for a look at once, and a task of each would take more memory than all else of them. So
    nobody is called either while it is `crowded` where those go on who have seen an end.
    """

    def __init__(self, value: int, crowded: Callable[[], bool] = lambda: False) -> None:
        super().__init__(value)
        self._crowded = crowded
        self._line: OrderedDict[Callable[[], None], None] = OrderedDict()
        self._later: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether one more reader had to wait; whoever stands in line then is called some day."""
        return self.locked() or self._crowded()

    def stand_in_line(self, call: Callable[[], None]) -> None:
        """Call it when it is its turn; whoever is called takes a place, or calls the next one in its stead."""
        self._line[call] = None
        self._call_later()

    def stands_in_line(self, call: Callable[[], None]) -> bool:
        """Tell whether it is yet to be called."""
        return call in self._line

    def leave_line(self, call: Callable[[], None]) -> None:
        """Call it no more."""
        self._line.pop(call, None)

    async def acquire(self) -> Literal[True]:
        """Wait for a place, and take it; where one is left, or was not taken after all, the next is called."""
        try:
            return await super().acquire()
        finally:
            self.call_next()

    def release(self) -> None:
        """Give a place back: to one that waits for it, else to the first of the line."""
        super().release()
        self.call_next()

    def call_next(self) -> None:
        """Call the first of the line, where a place is free."""
        if self._line and not self.busy:
            call, _ = self._line.popitem(last=False)
            call()
        self._call_later()

    def _call_later(self) -> None:
        """Look again soon where nobody who gives a place back would: it is crowded elsewhere."""
        if self._later is None and self._line and not self.locked():
            self._later = asyncio.get_running_loop().call_later(_CROWD_LOOK, self._look_again)

    def _look_again(self) -> None:
        self._later = None
        self.call_next()
