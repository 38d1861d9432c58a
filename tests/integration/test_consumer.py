"""Celery's consumer at the moment when its broker is gone."""

from pathlib import Path
from typing import Any

import kombu as untyped
import pytest
from celery.worker.consumer import Consumer as CelerysConsumer
from redis.exceptions import ConnectionError as Lost

from tests.chaos.breakables import breakable_redis
from worker.broker.consumer import Consumer

kombu: Any = untyped


def lost_with_a_message(tmp_path: Path) -> Any:
    """Return a connection whose server is gone while two channels wait for messages and one has kept one."""
    with breakable_redis(tmp_path) as redis:
        connection = kombu.Connection(redis.url)
        channel = connection.default_channel
        queue = kombu.Queue("q", channel=channel)
        queue.declare()
        kombu.Producer(channel).publish("one", routing_key="q")
        assert queue.get() is not None
        for waiting in (channel, connection.channel()):
            waiting._active_queues.append("q")
            waiting._queue_cycle.update(["q"])
            waiting.client.connection = waiting.client.connection_pool.get_connection()
            waiting._brpop_start()
        return connection


@pytest.mark.parametrize("kind", [Consumer, CelerysConsumer])
def test_a_lost_broker_does_not_end_the_consumer(tmp_path: Path, kind: type[CelerysConsumer]) -> None:
    """Expected: ours lets the connection go and can make a new one; where Celery's does as well, ours can go."""
    consumer: Any = object.__new__(kind)
    consumer.connection = lost_with_a_message(tmp_path)
    if kind is Consumer:
        consumer.on_connection_error_after_connected(Lost("gone"))
    else:
        with pytest.raises(AttributeError, match="hostname"):
            consumer.on_connection_error_after_connected(Lost("gone"))
    assert consumer.connection is None
