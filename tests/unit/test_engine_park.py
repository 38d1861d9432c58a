"""A run whose next look is far off is nobody's until then: its worker keeps nothing of it, and any worker looks."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import fakeredis
import pytest
from sqlalchemy import select, update

from tests.conformance.ground import Ground
from tests.servers import wait_until
from tests.workbench import Provider, parts
from worker.backends.base import Created, Done, Failed, Look, Pending
from worker.backends.places import Place
from worker.dbtime import from_now
from worker.engine import Engine
from worker.errors import ProviderError
from worker.lifecycle import Status
from worker.limits.asking import Limits
from worker.limits.gates import Gates
from worker.models import Attempt, EventRow, Run
from worker.parts import Parts
from worker.response import Usage
from worker.run.flight import Flight
from worker.run.pace import Held, Pace
from worker.store import asking, leases

HOUR = 3600.0
_NONE = Limits()


class Slow(Provider):
    """Wants to be looked at again in an hour until it has answered, and stops what it is asked to stop."""

    def __init__(self) -> None:
        super().__init__(Pending(look_after=HOUR))
        self.answered = self.stopped = False
        self.crashes = 0

    async def look(self, provider_id: str) -> Look:
        seen = await super().look(provider_id)
        if self.crashes:
            self.crashes -= 1
            raise RuntimeError("a bug of ours")
        if self.answered:
            return Done("an answer", Usage(), "item_1")
        return Failed("cancelled", "it was stopped", Usage(), transient=False) if self.stopped else seen

    async def cancel(self, provider_id: str) -> None:
        self.stopped = True


class Parking:
    """A provider that takes long, and engines for it."""

    def __init__(self, url: str) -> None:
        self.ground = Ground(url)
        self.provider = Slow()
        self.engines: list[Engine] = []

    def start(self, limits: Limits = _NONE) -> Engine:
        def made() -> Parts:
            made = parts(self.ground, self.provider, poll_max=2 * HOUR, idle_poll=0.1)
            whose = made.backends.whose
            gates = Gates(fakeredis.FakeAsyncRedis(), limits, whose=whose, emit=lambda *_, **__: None)
            return replace(made, limits=gates)

        self.engines.append(Engine("node", ["default"], made, lambda _queues: None))
        self.engines[-1].start(lambda: None)
        return self.engines[-1]

    def start_without_the_key(self, **settings: object) -> list[Place]:
        """Start a worker that lacks the key; returns the places it looks for, as it does so."""
        tried: list[Place] = []

        def at(place: Place) -> Provider:
            tried.append(place)
            raise ProviderError("missing_key", "no key here", transient=True)

        def made() -> Parts:
            made = parts(self.ground, self.provider, poll_max=2 * HOUR, idle_poll=0.05, **settings)
            made.backends.at = at  # type: ignore[method-assign]  # as where its variable is not set
            return made

        self.engines.append(Engine("lacking", ["default"], made, lambda _queues: None))
        self.engines[-1].start(lambda: None)
        return tried

    def park(self, timeout: float = 10 * HOUR) -> str:
        """Submit a run and return it when it is parked."""
        run = self.ground.submit(timeout=timeout)
        engine = self.start()
        wait_until(lambda: self.provider.looked and not engine.holds(), "that it is let go")
        assert self.ground.row(run).owner is None
        return run

    def pass_an_hour(self, run: str) -> None:
        """Make the run's look due, as if its step had been begun and looked at an hour before."""
        with self.ground.database.write() as connection:
            connection.execute(update(Run).values(due_at=from_now()).where(Run.id == run))
            began = {"intent_at": from_now(-HOUR - 60), "looked_at": from_now(-HOUR)}
            connection.execute(update(Attempt).values(**began).where(Attempt.run_id == run))

    def journal(self) -> list[str]:
        with self.ground.database.read() as connection:
            return list(connection.execute(select(EventRow.name).order_by(EventRow.id)).scalars())


@pytest.fixture
def parking(sqlite_url: str) -> Iterator[Parking]:
    parking = Parking(sqlite_url)
    yield parking
    for engine in parking.engines:
        engine.stop(20)
    parking.ground.close()


def test_it_is_nobodys_and_keeps_its_turn(parking: Parking) -> None:
    """Expected: in progress, due in about an hour, its turn kept, and no task, no timer, no object of it left."""
    run = parking.park()
    row = parking.ground.row(run)
    assert (row.status, row.turn) == (Status.IN_PROGRESS, True)
    with parking.ground.database.read() as connection:
        due = connection.execute(select(Run.due_at).where(Run.due_at.between(from_now(HOUR - 60), from_now(HOUR))))
        assert len(due.all()) == 1
    assert not parking.engines[0]._held
    assert not parking.engines[0]._tasks


def test_another_worker_looks_at_the_same_response(parking: Parking) -> None:
    """Expected: one response, completed in its first attempt, and a journal that tells of one claim."""
    run = parking.park()
    assert parking.engines[0].stop(20)
    parking.provider.answered = True
    parking.pass_an_hour(run)
    parking.start()
    wait_until(lambda: parking.ground.row(run).finished_at, "its end")
    row = parking.ground.row(run)
    assert (row.status, row.attempt, len(parking.provider.created)) == (Status.COMPLETED, 1, 1)
    assert parking.journal().count("claimed") == 1


def test_a_look_that_finds_it_running_parks_it_again(parking: Parking) -> None:
    """Expected: at once, with the second look; what is learnt of its age counts from the first."""
    run = parking.park()
    parking.pass_an_hour(run)
    wait_until(lambda: len(parking.provider.looked) == 2, "the second look")
    wait_until(lambda: parking.ground.row(run).owner is None and not parking.engines[0].holds(), "that it is let go")
    assert parking.journal().count("claimed") == 1
    table = parking.engines[0]._parts.looks.table(("helper", False))
    assert max(table._passed) < 1.1  # each age was passed through once


def test_the_look_it_was_parked_for_is_not_put_off(parking: Parking) -> None:
    """Expected: whoever claims it looks at once, although a pause that is chosen anew would last an hour."""
    provider = Provider(Done("an answer", Usage(), "item_1"))
    parking.ground.boot()
    parking.ground.submit()

    async def story() -> object:
        bench = parts(parking.ground, provider, poll_min=HOUR, poll_max=HOUR)
        pace = Pace(Held(parking.ground.take()), bench, lambda: True)
        return await Flight(pace, provider, Created("response"), number=0, age=100.0, seen=40.0).ended()

    assert isinstance(asyncio.run(story()), Done)


def test_a_cancel_does_not_wait_for_the_look(parking: Parking) -> None:
    """Expected: its response is stopped, and it ends now."""
    run = parking.park()
    parking.ground.write(asking.ask_cancel, run)
    wait_until(lambda: parking.ground.row(run).finished_at, "its end")
    assert (parking.ground.status(run), parking.provider.stopped) == (Status.CANCELLED, True)


def test_it_is_looked_for_when_its_time_is_over(parking: Parking) -> None:
    """Expected: due when its time ends, which is before its next look, and expired then."""
    run = parking.park(timeout=300.0)
    with parking.ground.database.read() as connection:
        assert connection.execute(select(Run.due_at).where(Run.due_at <= from_now(300.0))).all()
    with parking.ground.database.write() as connection:
        connection.execute(update(Run).values(due_at=from_now(), deadline_at=from_now()).where(Run.id == run))
    wait_until(lambda: parking.ground.row(run).finished_at, "its end")
    assert (parking.ground.status(run), parking.provider.stopped) == (Status.EXPIRED, True)


def test_it_is_held_where_runs_at_the_provider_are_counted(parking: Parking) -> None:
    """Expected: its worker keeps its place among them, and so keeps it."""
    run = parking.ground.submit(timeout=10 * HOUR)
    engine = parking.start(limits=Limits(runs=5))
    wait_until(lambda: parking.provider.looked and not engine._tasks, "a rest")
    assert [held["id"] for held in engine.holds()] == [run]


def tried_without_the_key(parking: Parking) -> str:
    """Return a parked run that a worker without its key has claimed more often than a crash is forgiven."""
    run = parking.park()
    assert parking.engines[0].stop(20)
    parking.pass_an_hour(run)
    tried = parking.start_without_the_key(park_after=0.05)
    wait_until(lambda: len(tried) > 4, "five claims")
    assert parking.engines[-1].stop(20)
    return run


def test_a_worker_without_the_key_does_not_fail_it(parking: Parking) -> None:
    """Expected: it comes more often than a crash is forgiven, and the run goes on with a worker that has the key."""
    run = tried_without_the_key(parking)
    assert parking.ground.status(run) is Status.IN_PROGRESS
    parking.provider.answered = True
    parking.pass_an_hour(run)
    parking.start()
    wait_until(lambda: parking.ground.row(run).finished_at, "its end")
    assert parking.ground.status(run) is Status.COMPLETED


def test_a_bug_is_forgiven_however_often_a_worker_lacked_the_key(parking: Parking) -> None:
    """Expected: the run goes on after one crash, in the same attempt."""
    run = tried_without_the_key(parking)
    parking.provider.crashes, parking.provider.answered = 1, True
    parking.pass_an_hour(run)
    parking.start()
    wait_until(lambda: parking.ground.row(run).finished_at, "its end")
    assert (parking.ground.status(run), parking.provider.crashes) == (Status.COMPLETED, 0)


def test_workers_without_the_key_come_seldom(parking: Parking) -> None:
    """Expected: as seldom as for looks that are far off: what goes on is claimed first, and nothing else would be."""
    run = parking.park()
    assert parking.engines[0].stop(20)
    parking.pass_an_hour(run)
    tried = parking.start_without_the_key()
    wait_until(lambda: tried and parking.ground.row(run).owner is None, "that it is let go")
    with parking.ground.database.read() as connection:
        assert connection.execute(select(Run.id).where(Run.due_at > from_now(20))).all()


@pytest.mark.parametrize(("asked", "status"), [("time", Status.FAILED), ("cancel", Status.CANCELLED)])
def test_it_ends_although_no_worker_has_the_key(parking: Parking, asked: str, status: Status) -> None:
    """Expected: with its time, or with a cancel, once some workers have tried."""
    run = parking.park()
    assert parking.engines[0].stop(20)
    if asked == "cancel":
        parking.ground.write(asking.ask_cancel, run)
    else:
        with parking.ground.database.write() as connection:
            connection.execute(update(Run).values(due_at=from_now(), deadline_at=from_now()).where(Run.id == run))
    parking.start_without_the_key()
    wait_until(lambda: parking.ground.row(run).finished_at, "its end")
    assert parking.ground.status(run) is status


def test_who_goes_on_after_the_death_of_the_one_who_looked_says_so(parking: Parking) -> None:
    """Expected: a claim in the journal, since that one does not come for the look."""
    run, ground = parking.park(), parking.ground
    assert parking.engines[0].stop(20)
    parking.pass_an_hour(run)
    ground.boot("dead")
    assert ground.take("dead").seen is not None
    ground.end_lease("dead")
    ground.write(leases.reap)
    ground.boot("heir")
    assert ground.take("heir").seen is None
    assert parking.journal()[-2:] == ["reaped", "claimed"]


def test_an_answer_that_came_in_time_is_taken_although_the_claim_came_too_late(parking: Parking) -> None:
    """Expected: completed: it was there, and nobody had looked."""
    run = parking.park()
    parking.provider.answered = True
    with parking.ground.database.write() as connection:
        connection.execute(update(Run).values(due_at=from_now(), deadline_at=from_now(-5)).where(Run.id == run))
    wait_until(lambda: parking.ground.row(run).finished_at, "its end")
    assert parking.ground.status(run) is Status.COMPLETED
