"""The doorbell: "there is something to claim". Never the truth, so a ring that fails is logged and not raised."""

from collections.abc import Callable, Iterable

import redis
import structlog

from worker import urls
from worker.broker import envelope, wire
from worker.settings import Settings

_log = structlog.get_logger(__name__)
_COALESCE_MS = 1000
_EXPIRES = 60  # seconds; by then every engine has looked by itself
_listeners: list[Callable[[], None]] = []


class Doorbell:
    """Rings the workers of a queue, at most once until one of them has heard it."""

    def __init__(self, settings: Settings) -> None:
        """Prepare; raises SettingsError where there is no broker."""
        self._redis = urls.redis_client(settings.broker_url())

    def ring(self, queues: Iterable[str]) -> None:
        """Ring for each of these queues; call it after the commit."""
        for queue in dict.fromkeys(queues):
            try:
                if self._redis.set(_key(queue), 1, nx=True, px=_COALESCE_MS):
                    self._send(queue)
            except (redis.RedisError, OSError) as error:
                told = "nothing is lost: workers look for due runs by themselves"
                _log.warning("ring_failed", queue=queue, error=type(error).__name__, hint=told)

    def _send(self, queue: str) -> None:
        name = wire.celery_queue(queue)  # also the list that Celery's workers take its messages from
        self._redis.lpush(name, envelope.message(wire.DISPATCH, (queue,), name, expires=_EXPIRES))

    def heard(self, queue: str) -> None:
        """Let the next ring through: called before the claim, so that no row slips in between unheard."""
        try:
            self._redis.delete(_key(queue))
        except redis.RedisError as error:
            _log.warning("ring_not_cleared", queue=queue, error=type(error).__name__)


def _key(queue: str) -> str:
    return f"runwright:ring:{queue}"


def on_ring(listener: Callable[[], None]) -> None:
    """Call the listener whenever this process is rung: the engine's wake."""
    _listeners.append(listener)


def answer() -> None:
    """Wake whatever listens in this process."""
    for listener in _listeners:
        listener()
