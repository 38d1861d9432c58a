"""A run that rests between two looks, for hours if it comes to that, hears all that is told to one that is driven."""

import asyncio
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from tests.conformance.ground import Ground
from tests.servers import wait_until
from tests.workbench import Provider, parts
from worker.backends.base import Created, Done, Failed, Look, Pending
from worker.backends.bounds import Readers
from worker.engine import Engine
from worker.lifecycle import Status
from worker.models import EventRow, Message
from worker.response import Usage
from worker.run.flight import Flight
from worker.run.pace import HandOver, Held, Pace, Rest
from worker.store import asking, leases

HOUR = 3600.0


class Patient(Provider):
    """Wants to be looked at again in an hour, and stops what it is asked to stop."""

    def __init__(self) -> None:
        super().__init__(Pending(look_after=HOUR))
        self.stopped = False

    async def look(self, provider_id: str) -> Look:
        stopped = Failed("cancelled", "it was stopped", Usage(), transient=False)
        return stopped if self.stopped else await super().look(provider_id)

    async def cancel(self, provider_id: str) -> None:
        self.stopped = True


class Busy(Provider):
    """Has one place for looks, and answers none before it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.readers = Readers(1)
        self.may_answer = threading.Event()

    async def look(self, provider_id: str) -> Look:
        async with self.readers:
            self.looked.append(provider_id)
            await asyncio.to_thread(self.may_answer.wait, 20)
            return Done("answer", Usage(), "item_1")

    async def cancel(self, provider_id: str) -> None:
        """Do nothing: what is asked has ended."""


class Resting:
    """An engine with one run, which rests."""

    def __init__(self, url: str, timeout: float) -> None:
        self.ground = Ground(url)
        self.run = self.ground.submit(timeout=timeout)
        self.provider = Patient()
        made = partial(parts, self.ground, self.provider, poll_max=HOUR, park_after=2 * HOUR, lease=1)
        self.engine = Engine("node", ["default"], made, lambda _queues: None)
        self.engine.start(lambda: None)
        self.wait_for_rest(self.engine.worker)

    def wait_for_rest(self, owner: str) -> None:
        """Wait until the run is this worker's, and no task drives it."""
        wait_until(lambda: self.row().owner == owner and self.provider.looked, "a look")
        wait_until(lambda: self.engine._held and not self.engine._tasks, "a rest")

    def row(self) -> Any:
        return self.ground.row(self.run)

    def journal(self) -> list[str]:
        with self.ground.database.read() as connection:
            return list(connection.execute(select(EventRow.name).order_by(EventRow.id)).scalars())

    def close(self) -> None:
        self.engine.stop(20)
        self.ground.close()


@pytest.fixture
def resting(sqlite_url: str, request: pytest.FixtureRequest) -> Iterator[Resting]:
    """Give an engine whose run has an hour, or what the parameter says."""
    resting = Resting(sqlite_url, getattr(request, "param", HOUR))
    yield resting
    resting.close()


def test_it_is_handed_over_when_its_worker_stops(resting: Resting) -> None:
    """Expected: at once, by its runner, and once."""
    assert resting.engine.stop(20)
    assert (resting.row().owner, resting.journal().count("handed_over")) == (None, 1)
    assert "released" not in resting.journal()


def test_it_is_cancelled(resting: Resting) -> None:
    """Expected: its response is stopped, and it ends without waiting for its next look."""
    resting.ground.write(asking.ask_cancel, resting.run)
    wait_until(lambda: resting.row().finished_at, "its end")
    assert (resting.row().status, resting.provider.stopped) == (Status.CANCELLED, True)


def test_it_keeps_no_input(resting: Resting) -> None:
    """Expected: what the provider has takes no memory here, and is a message of the thread when it ends."""
    (held,) = resting.engine._held.values()
    assert held.claim.input == []
    resting.ground.write(asking.ask_cancel, resting.run)
    wait_until(lambda: resting.row().finished_at, "its end")
    with resting.ground.database.read() as connection:
        said = connection.execute(select(Message.role, Message.content)).all()
    assert [tuple(row) for row in said] == [("user", ["hello"])]


@pytest.mark.parametrize("resting", [3.0], indirect=True)
def test_it_ends_when_its_time_is_over(resting: Resting) -> None:
    """Expected: expired, long before its next look."""
    wait_until(lambda: resting.row().finished_at, "its end")
    assert (resting.row().status, resting.provider.stopped) == (Status.EXPIRED, True)


def test_it_is_let_go_with_a_lost_lease(resting: Resting) -> None:
    """Expected: the worker goes on with it under its new id, once, and the old claim writes and wakes nothing."""
    old = resting.engine.worker
    resting.ground.write(leases.leave, old)
    wait_until(lambda: resting.row().owner not in {None, old}, "a new claim")
    resting.wait_for_rest(resting.engine.worker)
    assert (len(resting.provider.created), resting.row().fence, len(resting.engine._held)) == (1, 2, 1)
    assert resting.engine.stop(20)
    assert resting.journal().count("handed_over") == 1


def test_runs_stand_in_line_for_their_look(sqlite_url: str) -> None:
    """Expected: while one look takes the only place no task waits for it, and a cancel is heard; then all end."""
    ground, provider = Ground(sqlite_url), Busy()
    runs = [ground.submit(None) for _ in range(5)]
    made = partial(parts, ground, provider, poll_min=0.01)
    engine = Engine("node", ["default"], made, lambda _queues: None)
    engine.start(lambda: None)
    try:
        wait_until(lambda: provider.looked, "the first look")
        wait_until(lambda: len(provider.created) == 5 and len(engine._tasks) == 1, "four that stand in line")
        ground.write(asking.ask_cancel, next(run for run in runs if engine._held[run]._alarm is not None))
        wait_until(lambda: len(engine._tasks) == 2, "one that heeds its cancel")
        provider.may_answer.set()
        wait_until(lambda: all(ground.row(run).finished_at for run in runs), "the ends")
        statuses = [ground.status(run) for run in runs]
    finally:
        provider.may_answer.set()
        engine.stop(20)
        ground.close()
    assert statuses.count(Status.CANCELLED) == 1
    assert statuses.count(Status.COMPLETED) == 4
    assert engine._parts.looks.under_way == 0


def test_one_who_was_called_and_does_not_look_calls_the_next(sqlite_url: str) -> None:
    """Expected: a flight that is left after its turn has come gives it to who stands behind it."""
    ground, provider = Ground(sqlite_url), Busy()
    ground.boot()
    ground.submit()
    called: list[str] = []

    async def story() -> None:
        pace = Pace(Held(ground.take()), parts(ground, provider), lambda: True)
        flight = Flight(pace, provider, Created("response"), number=0)
        readers = provider.readers
        await readers.acquire()
        with pytest.raises(Rest):
            flight._stand_in_line()
        readers.stand_in_line(partial(called.append, "next"))
        readers.release()
        assert called == []
        flight.leave()

    asyncio.run(story())
    ground.close()
    assert called == ["next"]


def test_nobody_leaves_the_line_while_there_is_no_place(sqlite_url: str) -> None:
    """Expected: one that rests for as long as it may is no task among those that wait, but rests again."""
    ground, provider = Ground(sqlite_url), Busy()
    ground.boot()
    ground.submit()
    provider.may_answer.set()

    async def story() -> Done:
        pace = Pace(Held(ground.take()), parts(ground, provider, poll_min=0.01), lambda: True)
        flight = Flight(pace, provider, Created("response"), number=0)
        readers = provider.readers
        await readers.acquire()
        for _ in range(3):
            with pytest.raises(Rest):
                await flight.ended()
        assert pace.parts.looks.under_way == 1
        readers.release()
        ended = await flight.ended()
        assert isinstance(ended, Done)
        return ended

    assert asyncio.run(story()).text == "answer"
    ground.close()
    assert provider.looked == ["response"]


def test_who_is_left_is_in_the_line_no_more(sqlite_url: str) -> None:
    """Expected: nothing of a step is kept that is waited for no longer, although the line does not move."""
    ground, provider = Ground(sqlite_url), Busy()
    ground.boot()
    ground.submit()

    async def story() -> int:
        pace = Pace(Held(ground.take()), parts(ground, provider), lambda: True)
        flight = Flight(pace, provider, Created("response"), number=0)
        await provider.readers.acquire()
        with pytest.raises(Rest):
            flight._stand_in_line()
        flight.leave()
        return len(provider.readers._line)

    assert asyncio.run(story()) == 0
    ground.close()


class Telling(Provider):
    """Has its run told to stop in the very moment in which it answers a look."""

    held: Held

    async def look(self, provider_id: str) -> Look:
        self.held.tell(stop=True)
        return Pending(look_after=HOUR)


def test_what_comes_with_the_answer_of_a_look_is_heeded(sqlite_url: str) -> None:
    """Expected: the run does not lie down for an hour with the word that it is to be handed over."""
    ground, provider = Ground(sqlite_url), Telling()
    ground.boot()
    ground.submit()

    async def story() -> None:
        provider.held = Held(ground.take())
        pace = Pace(provider.held, parts(ground, provider, poll_min=0.01, poll_max=HOUR), lambda: True)
        flight = Flight(pace, provider, Created("response"), number=0, seen=0.0)
        with pytest.raises(HandOver):
            await flight.ended()

    asyncio.run(story())
    ground.close()
