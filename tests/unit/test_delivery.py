"""The delivery: what cannot be sent stays in the outbox, and one bad letter holds up no other."""

from collections.abc import Iterator
from typing import Any

import pytest
from kombu.exceptions import OperationalError
from sqlalchemy import select

from tests.conformance.ground import Ground
from worker.broker.delivery import Delivery
from worker.broker.outlet import Outlet
from worker.models import Outgoing
from worker.settings import Settings
from worker.store import outbox

HOOK = {"task": "shop.done", "args": [7], "kwargs": {"a": 1}, "queue": None, "immutable": False}


class Calls(Outlet):
    """An outlet that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    def put(self, call: Any) -> None:
        self.kept.append(call)


class Sender:
    """Stands for the Celery application that sends; fails on the tasks that it is told of."""

    def __init__(self) -> None:
        self.fails: dict[str, Exception] = {}
        self.sent: list[tuple[str, list[Any], dict[str, Any]]] = []

    def send_task(self, name: str, args: list[Any], kwargs: dict[str, Any], **options: Any) -> None:
        if name in self.fails:
            raise self.fails[name]
        self.sent.append((name, args, {**options, "kwargs": kwargs}))


@pytest.fixture
def ground(sqlite_url: str) -> Iterator[Ground]:
    ground = Ground(sqlite_url)
    yield ground
    ground.close()


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def delivery(ground: Ground, calls: Calls, sender: Sender) -> Delivery:
    """Return a delivery that sends to `sender`; its broker is nobody's."""
    settings = Settings(database_url=ground.database.url, redis_url="redis://127.0.0.1:1/0")
    delivery = Delivery(settings, ground.database, calls)
    delivery._hooks = sender
    return delivery


def enter(ground: Ground, *tasks: str, **changes: Any) -> None:
    for task in tasks:
        payload = outbox.letter({**HOOK, "task": task, **changes}, {"id": task})
        ground.write(outbox.put, outbox.RUN, task, payload)


def left(ground: Ground) -> list[tuple[str, bool]]:
    """Return the letters that are still there, and whether each is taken."""
    with ground.database.read() as connection:
        rows = connection.execute(select(Outgoing.subject, Outgoing.taken_until).order_by(Outgoing.id))
        return [(subject, until is not None) for subject, until in rows]


def test_a_hook_is_sent_as_a_link_would_be(ground: Ground, delivery: Delivery, sender: Sender) -> None:
    """What is told comes before its own arguments, but not where it is immutable; JSON; Celery's own default queue."""
    enter(ground, "one")
    enter(ground, "two", immutable=True, queue="mail")
    delivery.deliver()
    (one, first, sent), (two, second, other) = sender.sent
    assert ((one, first), (two, second)) == (("one", [{"id": "one"}, 7]), ("two", [7]))
    assert (sent["queue"], other["queue"], sent["kwargs"], sent["serializer"]) == ("celery", "mail", {"a": 1}, "json")
    assert sent["task_id"] != other["task_id"]
    assert left(ground) == []


def test_a_broker_that_is_away_leaves_them_for_the_tick(
    ground: Ground, delivery: Delivery, sender: Sender, calls: Calls
) -> None:
    """What was sent is gone, the rest is free at once; ends do not try again, the tick does."""
    enter(ground, "one", "two", "three")
    sender.fails["two"] = OperationalError("away")
    delivery.deliver()
    assert left(ground) == [("two", False), ("three", False)]
    claim = type("Claim", (), {"store_result": False, "on_end": True, "batch_id": None})
    delivery("run.ended", {"claim": claim})
    assert calls.kept == []
    delivery("worker.tended", {})
    sender.fails.clear()
    calls.kept.pop()()
    assert left(ground) == []
    for _ in range(3):
        delivery("run.ended", {"claim": claim})
    assert len(calls.kept) == 1


def test_a_bad_letter_holds_up_no_other(ground: Ground, delivery: Delivery, sender: Sender) -> None:
    """The others are sent; the bad one stays and is not tried again in the same breath."""
    enter(ground, "one", "two", "three")
    sender.fails["two"] = ValueError("nobody can send this")
    delivery.deliver()
    delivery.deliver()
    assert [name for name, _, _ in sender.sent] == ["one", "three"]
    assert left(ground) == [("two", True)]


def test_a_backlog_is_sent_in_rounds(ground: Ground, delivery: Delivery, sender: Sender, calls: Calls) -> None:
    """A full round queues the next behind what else the outlet has to do."""
    enter(ground, *(str(number) for number in range(120)))
    delivery.deliver()
    assert (len(sender.sent), len(calls.kept)) == (100, 1)
    calls.kept.pop()()
    assert (len(sender.sent), len(calls.kept)) == (120, 0)


def test_a_result_backend_that_is_away_gives_up_soon(ground: Ground, delivery: Delivery) -> None:
    """Nothing listens there: the letter is free again after one try, not after Celery's twenty."""
    ground.submit(store_result=True)
    ground.boot()
    ground.settle(ground.take())
    delivery.deliver()
    assert [taken for _, taken in left(ground)] == [False]
