"""Keeps this worker alive: one row, renewed by a thread and a connection of its own, so that no tool delays it."""

import os
import threading
import time
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from worker.crashpoints import reach
from worker.errors import LostClaim
from worker.store import leases
from worker.store.database import Database

_log = structlog.get_logger(__name__)
_BLOCKED_EXIT = 70  # EX_SOFTWARE of sysexits.h


def now() -> float:
    """Return seconds on a clock that goes on while the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease(threading.Thread):
    """Renews the worker's row three times in each lease, as long as the engine's loop goes round.

    A loop that a tool has blocked carries no run: its lease is let go, so that others take over, and when it does not
    come back the process ends.
    """

    def __init__(self, url: str, worker: str, seconds: float, on_loop: Callable[[Callable[[], None]], object]) -> None:
        """Prepare; `on_loop` has the engine's loop call a function."""
        super().__init__(name="lease", daemon=True)
        self._database = Database(url, pool_size=1)
        self._worker = worker
        self._seconds = seconds
        self._on_loop = on_loop
        self._ticked = now()
        self._valid_until = self._ticked + seconds
        self._since = self._ticked
        self._turned = threading.Event()
        self._stopped = threading.Event()
        self.lost = threading.Event()

    def valid(self) -> bool:
        """Tell whether our claims hold for sure; to be asked before each call to the outside."""
        return now() < self._valid_until

    def settled(self) -> bool:
        """Tell whether it has held for a while: only such a worker may declare another one dead.

        After an outage of the database every lease has run out, and all of them deserve the time to renew.
        """
        return self.valid() and now() - self._since > self._seconds / 3 + 1

    def run(self) -> None:
        """Renew until stopped or lost; a database that is away is tried again sooner."""
        pause = self._seconds / 3
        while not self._stopped.wait(pause):
            pause = self._seconds / 3 if self._renewed() else min(1.0, self._seconds / 10)
            if self.lost.is_set():
                break
        self._database.close()

    def _renewed(self) -> bool:
        if not self._loop_answers():
            self._blocked()
            return False
        began = now()
        try:
            reach("commit.renew.before")
            with self._database.write() as connection:
                leases.renew(connection, self._worker, self._seconds)
            reach("commit.renew.after")
        except LostClaim:
            _log.error("lease_lost", worker=self._worker)
            self.lost.set()
            return False
        except SQLAlchemyError as error:
            _log.warning("lease_not_renewed", error=type(error).__name__)
            return False
        if not self.valid():
            self._since = now()
        self._valid_until = began + self._seconds
        return True

    def _loop_answers(self) -> bool:
        """Tell whether the loop goes round; one that was frozen with the whole process has a moment to say so."""
        self._turned.clear()
        self._on_loop(self._tick)
        return now() - self._ticked <= self._seconds or self._turned.wait(min(1.0, self._seconds / 3))

    def _tick(self) -> None:
        self._ticked = now()
        self._turned.set()

    def _blocked(self) -> None:
        _log.critical("engine_blocked", seconds=round(now() - self._ticked, 1))
        if now() - self._ticked > 3 * self._seconds:
            os._exit(_BLOCKED_EXIT)

    def stop(self) -> None:
        """End the thread; the row stays until its owner leaves or the reaper comes."""
        self._stopped.set()
