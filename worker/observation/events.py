"""The one seam of observation: the engine says what happened; logs, metrics, watchers, Flower and delivery heed it."""

from collections.abc import Callable, Mapping
from typing import Any

import structlog

Subscriber = Callable[[str, Mapping[str, Any]], None]
_log = structlog.get_logger(__name__)


class Events:
    """Hands each event to every subscriber, in the thread that emits it; a subscriber must not block."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call `subscriber(name, fields)` for each event from now on."""
        self._subscribers.append(subscriber)

    def emit(self, name: str, **fields: Any) -> None:
        """Tell everyone; what a subscriber raises is logged and harms nothing."""
        for subscriber in self._subscribers:
            try:
                subscriber(name, fields)
            except Exception:  # noqa: BLE001 - observation must never stop a run
                _log.exception("subscriber_failed", name=name)
