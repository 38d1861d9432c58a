"""The doorbell's message, which is written without Celery, beside the one that Celery sends."""

import base64
import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from worker import urls
from worker.broker import wire
from worker.broker.doorbell import Doorbell
from worker.settings import Settings

# What differs from one message to the next; reply_to names who waits for a result, and nobody does.
OWN_HEADERS = {"id", "root_id", "expires"}
OWN_PROPERTIES = {"correlation_id", "delivery_tag", "reply_to"}


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return Settings(home=tmp_path, redis_url=redis_url)


def taken(settings: Settings) -> dict[str, Any]:
    """Take the one message from the list of the default queue, as a worker of Celery's does."""
    with redis.Redis.from_url(urls.redis_client_url(settings.broker_url())) as client:
        message = client.rpop("runwright.default")
        assert isinstance(message, bytes)
        assert not client.llen("runwright.default")
    return dict(json.loads(message))


def sent_by_celery(settings: Settings) -> dict[str, Any]:
    with Celery("runwright", set_as_current=False) as app:
        app.conf.update(wire.configuration(settings))
        app.send_task("runs.dispatch", ("default",), queue="runwright.default", expires=60, ignore_result=True)
    return taken(settings)


def test_the_ring_is_what_celery_would_send(settings: Settings) -> None:
    """In the same list, every key and value the same but for what is each message's own; the body byte for byte."""
    Doorbell(settings).ring(["default"])
    ours, theirs = taken(settings), sent_by_celery(settings)
    assert {**ours, "headers": {}, "properties": {}} == {**theirs, "headers": {}, "properties": {}}
    for part, own in (("headers", OWN_HEADERS), ("properties", OWN_PROPERTIES)):
        assert ours[part].keys() == theirs[part].keys()
        assert {k: v for k, v in ours[part].items() if k not in own} == {
            k: v for k, v in theirs[part].items() if k not in own
        }
    assert json.loads(base64.b64decode(ours["body"]))[0] == ["default"]


def test_each_ring_has_an_id_and_an_end_of_its_own(settings: Settings) -> None:
    """Celery knows a message by its tag and a task by its id, which stands in three places; it ends in a minute."""
    bell, seen = Doorbell(settings), set()
    for _ in range(2):
        bell.ring(["default"])
        bell.heard("default")
        message = taken(settings)
        headers, properties = message["headers"], message["properties"]
        assert headers["id"] == headers["root_id"] == properties["correlation_id"] == str(uuid.UUID(headers["id"]))
        left = datetime.fromisoformat(headers["expires"]) - datetime.now(UTC)
        assert timedelta(seconds=30) < left <= timedelta(seconds=60)
        seen |= {headers["id"], properties["delivery_tag"]}
    assert len(seen) == 4
