"""Celery's consumer, which a broker that is lost at a bad moment must not end, and the worker with it."""

import contextlib

from celery.worker.consumer import Consumer as CelerysConsumer


class Consumer(CelerysConsumer):  # type: ignore[misc]  # Celery has no types
    """Comes back whatever closing the lost connection raises."""

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Leave the connection, which then is made anew.

        kombu 5.7 closes a channel that has a message which is not acknowledged once more when its transport has no
        client any more, where another channel could not be closed before it (connection.py, collect and release).
        That AttributeError would end the worker.
        """
        with contextlib.suppress(AttributeError):
            super().on_connection_error_after_connected(exc)
