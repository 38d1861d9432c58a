"""A thread that tells Celery's world what happened: slow or lost Redis connections must not hold up the engine."""

import queue
import threading
from collections.abc import Callable

import structlog

_log = structlog.get_logger(__name__)
_ROOM = 20_000


class Outlet(threading.Thread):
    """Calls what it is given, one after another; drops with a warning when it falls far behind."""

    def __init__(self) -> None:
        super().__init__(name="outlet", daemon=True)
        self._calls: queue.Queue[Callable[[], object] | None] = queue.Queue(_ROOM)

    def put(self, call: Callable[[], object]) -> None:
        """Queue a call; never blocks."""
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            _log.warning("outlet_full", room=_ROOM)

    def run(self) -> None:
        """Make the calls until stopped; what one raises is logged."""
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - Redis, kombu and Celery raise what they like
                _log.warning("outlet_failed", error=type(error).__name__)

    def stop(self, seconds: float = 5.0) -> None:
        """Make the calls that wait, for some seconds at most, and end."""
        try:
            self._calls.put(None, timeout=seconds)
        except queue.Full:
            return
        self.join(seconds)
