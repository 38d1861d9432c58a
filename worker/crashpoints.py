"""Named places in product code where a test can kill the process: before and after every commit and outside call.

Off, a point costs one comparison. RUNWRIGHT_CRASH_AT=POINT:N arms the Nth passing of one point in one process.
Points are `commit.UNIT.before|after` for each unit of the store and `outside.CALL.before|after` for each call to the
provider, to a tool, or to the broker.
"""

import os
import signal
import threading
from dataclasses import dataclass, field

from worker.errors import SettingsError


@dataclass(slots=True)
class _Armed:
    point: str
    left: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    def passed(self, point: str) -> None:
        if point != self.point:
            return
        with self.lock:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


_armed: _Armed | None = None


def arm(spec: str | None) -> None:
    """Arm one point, given as POINT or POINT:N; None disarms. Raises SettingsError for a number that is none."""
    global _armed  # noqa: PLW0603 - the process has one life to end
    if spec is None:
        _armed = None
        return
    point, _, number = spec.partition(":")
    if number and not (number.isascii() and number.isdecimal() and int(number)):
        raise SettingsError(f"RUNWRIGHT_CRASH_AT={spec}: accepted are POINT and POINT:N, N from 1")
    _armed = _Armed(point, int(number or 1))


def reach(point: str) -> None:
    """Pass a point: nothing happens unless it is the armed one."""
    if _armed is not None:
        _armed.passed(point)
