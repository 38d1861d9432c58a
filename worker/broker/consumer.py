"""Celery's consumer, which a broker that is lost at a bad moment must not end, and the worker with it."""

import contextlib
from typing import Any

from celery.worker.consumer import Consumer as CelerysConsumer


class Consumer(CelerysConsumer):  # type: ignore[misc]  # Celery has no types
    """Comes back whatever a lost connection raises.

    kombu 5.7 looks for the client of a transport that has none any more (redis.py, _connparams) where a message is
    acknowledged after its connection was lost, and where it is given back while that is closed, if another channel
    could not be closed before (connection.py, collect and release). The AttributeError would end the worker.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.connection_errors: tuple[type[Exception], ...] = (*self.conninfo.connection_errors, AttributeError)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Leave the connection, which then is made anew."""
        with contextlib.suppress(AttributeError):
            super().on_connection_error_after_connected(exc)
