"""The notice that a run has ended, over Redis pub/sub: it wakes who waits. Never the truth, so one may be lost."""

import random
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Self

import redis
import structlog
from redis.client import PubSub

from worker import urls
from worker.broker.outlet import Outlet
from worker.settings import Settings

_log = structlog.get_logger(__name__)
_LIMIT = 2.0  # seconds for a subscription to be confirmed
_GATHER = 0.03  # seconds; one message each would cost as much as a request
_LOOK = 3.0  # seconds after which a waiter looks at the row although no notice came
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 1.0  # without Redis


class Notices:
    """Publishes ends and lets others hear them."""

    def __init__(self, settings: Settings) -> None:
        """Prepare; raises SettingsError where there is no broker."""
        self._redis = urls.redis_client(settings.broker_url())

    def publish(self, run_ids: Iterable[str]) -> None:
        """Wake whoever waits for these runs; call it after the commit."""
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for run_id in run_ids:
                    pipeline.publish(_channel(run_id), 1)
                pipeline.execute()
        except (redis.RedisError, OSError) as error:
            _log.warning("notice_failed", error=type(error).__name__)

    def subscribe(self, run_id: str) -> PubSub:
        """Return a subscription that Redis has confirmed: what ends from now on is heard. Raises RedisError."""
        channel: PubSub = self._redis.pubsub()  # type: ignore[no-untyped-call]
        try:
            channel.subscribe(_channel(run_id))
            if channel.get_message(timeout=_LIMIT) is None:
                raise redis.TimeoutError("the subscription is not confirmed")
        except BaseException:
            channel.close()
            raise
        return channel


def _channel(run_id: str) -> str:
    return f"runwright:ended:{run_id}"


class EndNotices:
    """Hears of ends from the engine and publishes them from the outlet's thread."""

    def __init__(self, notices: Notices, outlet: Outlet) -> None:
        self._notices = notices
        self._outlet = outlet
        self._ended: deque[str] = deque()

    def __call__(self, name: str, fields: Mapping[str, Any]) -> None:
        """Publish the end of a run, with those that come directly after it."""
        if name == "run.ended":
            self._ended.append(fields["claim"].run_id)
            self._outlet.soon(self._publish, _GATHER)

    def _publish(self) -> None:
        ended = []
        while self._ended:
            ended.append(self._ended.popleft())
        self._notices.publish(ended)


class Ear:
    """Waits for the end of one run; without notices, or without Redis, it only pauses between looks at the row."""

    def __init__(self, notices: Notices | None, run_id: str) -> None:
        self._notices = notices
        self._run_id = run_id
        self._channel: PubSub | None = None
        self._pause = _FIRST_LOOK

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_error: object) -> None:
        self._hang_up()

    def wait(self, most: float) -> None:
        """Return when the row is worth a look, after `most` seconds at the latest."""
        if self._channel is None:
            time.sleep(min(most, self._pause))
            self._pause = min(self._pause * 1.5, _LONGEST_LOOK)
            if self._pause == _LONGEST_LOOK:
                self._listen()
            return
        try:
            self._channel.get_message(timeout=min(most, _LOOK * random.uniform(0.75, 1.25)))
        except (redis.RedisError, OSError):
            self._hang_up()

    def _listen(self) -> None:
        if self._notices is None:
            return
        try:
            self._channel = self._notices.subscribe(self._run_id)
        except (redis.RedisError, OSError):
            self._pause = _FIRST_LOOK

    def _hang_up(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel, self._pause = None, _FIRST_LOOK
