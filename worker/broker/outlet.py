"""A thread for all that is told over Redis, rings, notices, text, task events and hooks: none holds up the engine."""

import queue
import threading
from collections.abc import Callable
from time import monotonic

import structlog

_log = structlog.get_logger(__name__)
_ROOM = 20_000
Call = Callable[[], object]


class Outlet(threading.Thread):
    """Calls what it is given, one after another; drops with a warning when it falls far behind."""

    def __init__(self) -> None:
        super().__init__(name="outlet", daemon=True)
        self._calls: queue.Queue[Call | None] = queue.Queue(_ROOM)
        self._soon: dict[Call, float] = {}
        self._lock = threading.Lock()

    def put(self, call: Call) -> None:
        """Queue a call; never blocks."""
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            _log.warning("outlet_full", room=_ROOM)

    def soon(self, call: Call, seconds: float) -> None:
        """Make a call in so many seconds, once however often it is asked for meanwhile; never blocks."""
        with self._lock:
            if call in self._soon:
                return
            self._soon[call] = monotonic() + seconds
        self.put(_nothing)  # the thread may be waiting for a call without a limit

    def run(self) -> None:
        """Make the calls until stopped; what one raises is logged."""
        stopped = False
        while not stopped:
            try:
                call = self._calls.get(timeout=self._pause())
            except queue.Empty:
                call = _nothing
            stopped = call is None
            for one in (call or _nothing, *self._due(everything=stopped)):
                _make(one)

    def _pause(self) -> float | None:
        """Return the seconds until a call is due that was asked for soon, None where there is none."""
        with self._lock:
            first = min(self._soon.values(), default=None)
        return None if first is None else max(0.0, first - monotonic())

    def _due(self, *, everything: bool) -> list[Call]:
        with self._lock:
            due = [call for call, at in self._soon.items() if everything or at <= monotonic()]
            for call in due:
                del self._soon[call]
        return due

    def stop(self, seconds: float = 5.0) -> None:
        """Make the calls that wait, for some seconds at most, and end."""
        try:
            self._calls.put(None, timeout=seconds)
        except queue.Full:
            return
        self.join(seconds)


def _make(call: Call) -> None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - Redis, kombu and Celery raise what they like
        _log.warning("outlet_failed", error=type(error).__name__)


def _nothing() -> None:
    """Only wake the thread."""
