"""A step that lives on its connection: left on a cancel, finished on a deploy, asked for again after a crash."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from tests.conformance.ground import Ground
from tests.unit.test_chain import drive, drive_and_tell
from tests.workbench import Provider, parts
from worker.backends.base import Created, Done, Ended, Failed, Step
from worker.backends.places import PROTOCOLS
from worker.lifecycle import Status
from worker.models import Attempt
from worker.models import Item as Row
from worker.response import Item, Opened, Usage
from worker.run.pace import Held
from worker.store import assistants

SAID: tuple[Item, ...] = ({"role": "user", "content": "ask"}, {"role": "assistant", "content": "an answer"})
ANSWER = Done("an answer", Usage(), "", items=SAID)
GONE = Failed("interrupted", "gone", Usage(), transient=True)


@pytest.fixture
def ground(sqlite_url: str) -> Iterator[Ground]:
    """Give a database with an assistant that is served by chat completions, and a worker."""
    ground = Ground(sqlite_url)
    config = {"model": "m", "backend": "chat"}
    ground.assistant_id = ground.write(assistants.apply, "chatter", config)[0].id
    ground.boot()
    yield ground
    ground.close()


class Silent:
    """Says nothing until it may, then this end."""

    broken = False

    def __init__(self, end: Ended, speaks: asyncio.Event) -> None:
        self.closed = 0
        self.patience: list[float] = []
        self.followed = asyncio.Event()
        self.speaks = speaks
        self._end = end

    async def ended(self, seconds: float) -> Ended | None:
        self.followed.set()
        self.patience.append(seconds)
        try:
            async with asyncio.timeout(seconds):
                await self.speaks.wait()
        except TimeoutError:
            return None
        return self._end

    def close(self) -> None:
        self.closed += 1


class Foreground(Provider):
    """Gives each step a connection; `slow` ones are asked for until the event that goes with them."""

    can = PROTOCOLS["chat"]

    def __init__(self, *ends: Ended, slow: bool = False) -> None:
        super().__init__(GONE)
        self.speaks, self.asked, self.left = asyncio.Event(), asyncio.Event(), False
        self.lines = [Silent(end, self.speaks) for end in ends]
        self._slow = slow

    async def open_conversation(self, thread_id: str, history: Any = ()) -> Opened:
        return Opened(f"local_{thread_id}", ())

    async def create(self, step: Step) -> Created:
        self.asked.set()
        if self._slow:
            try:
                await self.speaks.wait()
            except asyncio.CancelledError:
                self.left = True
                raise
        created = await super().create(step)
        return Created(created.id, following=self.lines[len(self.created) - 1], keeps_slot=True)

    async def cancel(self, provider_id: str) -> None:
        assert self.lines[-1].closed


def reissued(ground: Ground, run: str) -> list[int]:
    with ground.database.read() as connection:
        return list(connection.execute(select(Attempt.reissued).where(Attempt.run_id == run)).scalars())


def test_a_cancel_leaves_a_create_that_takes_long(ground: Ground) -> None:
    """Expected: the server may read a long prompt for minutes; the run is cancelled at once, its place free again."""
    run, provider = ground.submit(), Foreground(ANSWER, slow=True)
    bench = parts(ground, provider)
    asyncio.run(drive_and_tell(Held(ground.take()), bench, provider.asked, cancel=True))
    assert (ground.status(run), provider.left, provider.created) == (Status.CANCELLED, True, [])
    assert not provider.slots.locked()


def test_the_time_limit_ends_a_create_that_takes_long(ground: Ground) -> None:
    """Expected: expired, not waited for."""
    run, provider = ground.submit(timeout=0.2), Foreground(ANSWER, slow=True)
    asyncio.run(drive(Held(ground.take()), parts(ground, provider)))
    assert (ground.status(run), provider.left) == (Status.EXPIRED, provider.asked.is_set())


@pytest.mark.parametrize("slow", [True, False])
def test_a_worker_that_stops_gives_a_step_its_grace(ground: Ground, slow: bool) -> None:
    """Expected: neither the create nor the answer is left; the run completes, and keeps what was said."""
    run, provider = ground.submit(), Foreground(ANSWER, slow=slow)

    async def story() -> None:
        held = Held(ground.take())
        driving = asyncio.create_task(drive(held, parts(ground, provider)))
        await asyncio.wait_for((provider.asked if slow else provider.lines[0].followed).wait(), 10)
        held.tell(stop=True)
        await asyncio.wait({driving}, timeout=0.2)
        assert not driving.done()
        provider.speaks.set()
        await asyncio.wait_for(driving, 10)

    asyncio.run(story())
    assert (ground.status(run), provider.left) == (Status.COMPLETED, False)
    with ground.database.read() as connection:
        assert tuple(connection.execute(select(Row.item).order_by(Row.id)).scalars()) == SAID


def test_a_cancel_closes_the_connection_of_a_step(ground: Ground) -> None:
    """Expected: cancelled at once; nothing of the step is kept."""
    run, provider = ground.submit(), Foreground(ANSWER)
    asyncio.run(drive_and_tell(Held(ground.take()), parts(ground, provider), provider.lines[0].followed, cancel=True))
    assert (ground.status(run), provider.lines[0].closed) == (Status.CANCELLED, 1)


def test_the_limit_of_a_step_is_kept_without_looks(ground: Ground) -> None:
    """Expected: seconds after its limit, not when the next look would be due; then the attempts are used up."""
    run, provider = ground.submit(max_attempts=1), Foreground(ANSWER)
    bench = parts(ground, provider, step_timeout=0.1, poll_max=600)
    asyncio.run(asyncio.wait_for(drive(Held(ground.take()), bench), 10))
    assert (ground.status(run), ground.row(run).error_code) == (Status.FAILED, "step_timeout")
    assert provider.lines[0].closed == 1


def test_the_limit_of_a_step_counts_from_its_request(ground: Ground) -> None:
    """Expected: what the first event took is taken off."""
    run, provider = ground.submit(max_attempts=1), Foreground(ANSWER, slow=True)
    line = provider.lines[0]
    line.speaks = asyncio.Event()

    async def story() -> None:
        bench = parts(ground, provider, step_timeout=0.5, poll_max=600)
        driving = asyncio.create_task(drive(Held(ground.take()), bench))
        await asyncio.wait_for(provider.asked.wait(), 10)
        asyncio.get_running_loop().call_later(0.3, provider.speaks.set)
        await driving

    asyncio.run(story())
    assert (ground.row(run).error_code, line.patience[0] < 0.3) == ("step_timeout", True)


def test_a_step_that_a_worker_has_left_is_asked_for_again(ground: Ground) -> None:
    """Expected: counted, in the same attempt; no look at what is gone."""
    run, provider = ground.submit(), Foreground(ANSWER, ANSWER)

    async def story() -> None:
        claim = ground.take()
        crashed = asyncio.create_task(drive(Held(claim), parts(ground, provider)))
        await asyncio.wait_for(provider.lines[0].followed.wait(), 10)
        crashed.cancel()
        await asyncio.wait({crashed})
        provider.speaks.set()
        ground.hand_over(claim)
        await drive(Held(ground.take()), parts(ground, provider))

    asyncio.run(story())
    assert (ground.status(run), reissued(ground, run), provider.looked) == (Status.COMPLETED, [1], [])
