"""The signals that ask a command to end: the first breaks off what it does, never the stopping that follows."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Counts what comes; KeyboardInterrupt is raised only where the code says that nothing can be lost by it."""

    def __init__(self) -> None:
        self._came = 0
        self._heeded = 0
        self._breaking = False

    @property
    def hurried(self) -> bool:
        """Tell whether more have come than the one that ended the work."""
        return self._came > self._heeded

    def check(self) -> None:
        """Raise KeyboardInterrupt if one has come."""
        if self._came:
            self._breaking, self._heeded = False, 1
            raise KeyboardInterrupt

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take the signals until the block ends; one that is ignored, as by nohup, stays so."""
        before = {number: handler for number in _NUMBERS if (handler := signal.getsignal(number)) != signal.SIG_IGN}
        for number in before:
            signal.signal(number, self._take)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def breaking(self) -> Iterator[None]:
        """Let the first signal, also one that has come before, break off the block."""
        self._breaking = True
        try:
            self.check()
            yield
        finally:
            self._breaking = False

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self._came += 1
        if self._breaking:
            self.check()
