"""The doorbell: rings coalesce until they are heard, and a ring that fails harms nobody."""

from pathlib import Path

import fakeredis
import pytest
import redis

from worker.broker import doorbell
from worker.broker.doorbell import Doorbell
from worker.settings import Settings


class Bell(Doorbell):
    """A doorbell on a fake Redis, where what it has sent can be read."""

    def __init__(self, home: Path) -> None:
        super().__init__(Settings(home=home, redis_url="redis://127.0.0.1:1/0"))
        self._redis.close()
        self._redis = fakeredis.FakeRedis()

    def sent(self, queue: str) -> int:
        """Return how many messages lie in a queue of Celery's."""
        return int(self._redis.llen(f"runwright.{queue}"))


@pytest.fixture
def bell(tmp_path: Path) -> Bell:
    return Bell(tmp_path)


def test_rings_coalesce_until_heard(bell: Bell) -> None:
    """Of many rings of one queue the first is sent; after it was heard the next goes out again."""
    for _ in range(5):
        bell.ring(["default"])
    assert bell.sent("default") == 1

    bell.heard("default")
    bell.ring(["default"])
    assert bell.sent("default") == 2


def test_each_queue_has_its_own_bell(bell: Bell) -> None:
    """A ring of one queue does not swallow another's, and a queue named twice rings once."""
    bell.ring(["bulk", "default", "bulk"])

    assert (bell.sent("bulk"), bell.sent("default")) == (1, 1)


def test_a_ring_that_nobody_hears_is_repeated(bell: Bell) -> None:
    """The key that coalesces lives shortly: a message that was lost does not silence the bell for good."""
    bell.ring(["default"])
    left = bell._redis.pttl("runwright:ring:default")

    assert 0 < left <= 1000


def test_a_broken_redis_is_logged_not_raised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing listens on the broker's port: ring and heard return, and the log names the failure, not the URL."""
    bell = Doorbell(Settings(home=tmp_path, redis_url="redis://user:secret@127.0.0.1:1/0"))

    bell.ring(["default"])
    bell.heard("default")

    said = capsys.readouterr()
    assert "ring_failed" in said.out + said.err
    assert "secret" not in said.out + said.err
    assert isinstance(bell._redis, redis.Redis)


def test_answer_wakes_every_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was registered with on_ring is called at each ring of this process."""
    monkeypatch.setattr(doorbell, "_listeners", [])
    woken: list[int] = []
    doorbell.on_ring(lambda: woken.append(1))

    doorbell.answer()
    doorbell.answer()

    assert woken == [1, 1]
