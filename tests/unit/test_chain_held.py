"""A step that waits at the provider for the outputs of its calls: never left there, whatever the run ends with."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.conformance.ground import Ground
from tests.unit.test_chain import attempt, drive
from tests.workbench import Provider, parts
from tools.registry import tool
from worker.backends.base import Created, Done, Failed, Look, NeedsTools, Step
from worker.backends.places import PROTOCOLS
from worker.errors import ProviderError
from worker.lifecycle import Status
from worker.parts import Parts
from worker.response import Asked, Usage
from worker.run.pace import Held
from worker.run.runner import Runner
from worker.store import asking, assistants, leases, progress

ASSISTANTS = {"model": "m", "backend": {"protocol": "assistants"}, "tools": ["peek"]}
BUSY = ProviderError("conversation_locked", "Thread t already has an active run.", transient=True)


@tool(effect="read")
def peek(name: str) -> str:
    """Read something."""
    return f"{name} was read"


class Holding(Provider):
    """One thread, on which one run at a time is active: it asks so often for a tool, and is then completed."""

    can = PROTOCOLS["assistants"]

    def __init__(self, rounds: int = 1) -> None:
        super().__init__(Done("never", Usage(), None))
        self.rounds = rounds
        self.ends: list[str] = []
        self.asked = asyncio.Event()
        self._left = 0
        self.active = False

    async def create(self, step: Step) -> Created:
        if step.previous is None and self.active:
            raise BUSY
        self.created.append(step)
        self._left = self.rounds if step.previous is None else self._left - 1
        self.active = True
        return Created(step.previous or f"thread/run {len(self.created)}")

    async def look(self, provider_id: str) -> Look:
        if self.ends and not self.active:
            return Failed("cancelled_at_provider", "stopped", Usage(), transient=False)
        if self._left:
            self.asked.set()
            call = Asked(f"call {len(self.created)}", "peek", '{"name": "x"}')
            return NeedsTools((call,), Usage(), None)
        self.active = False
        return Done("an answer", Usage(), None)

    async def cancel(self, provider_id: str) -> None:
        self.ends.append(provider_id)
        self.active = False


@pytest.fixture
def ground(sqlite_url: str) -> Iterator[Ground]:
    """Give a database with an assistant of Assistants v2, and two workers."""
    ground = Ground(sqlite_url)
    configure(ground)
    ground.boot("w1"), ground.boot("w2")
    yield ground
    ground.close()


def configure(ground: Ground, **changes: object) -> None:
    ground.assistant_id = ground.write(assistants.apply, "holder", {**ASSISTANTS, **changes})[0].id


def is_free(ground: Ground, provider: Holding) -> None:
    """Let a further run go over the same thread, to its end."""
    provider.rounds, provider.ends = 0, []
    configure(ground)
    run = ground.submit()
    asyncio.run(drive(Held(ground.take()), parts(ground, provider, peek)))
    assert ground.status(run) is Status.COMPLETED


def test_each_step_gives_its_outputs_to_the_one_run(ground: Ground) -> None:
    """Expected: the id of the first step is that of all, and each is told what was answered before, by name."""
    run, provider = ground.submit(), Holding(rounds=2)
    asyncio.run(drive(Held(ground.take()), parts(ground, provider, peek)))
    assert ground.status(run) is Status.COMPLETED
    assert [step.previous for step in provider.created] == [None, "thread/run 1", "thread/run 1"]
    assert [len(step.earlier) for step in provider.created] == [0, 0, 1]
    (before,) = provider.created[2].earlier
    assert (before.call_id, before.name, before.arguments, before.output) == (
        "call 1",
        "peek",
        '{"name": "x"}',
        "x was read",
    )
    assert provider.created[2].answers[0].name == "peek"
    is_free(ground, provider)


def test_a_run_with_too_many_steps_ends_the_one_that_waits(ground: Ground) -> None:
    """Expected: the run has failed, the provider's was cancelled, and the conversation is kept."""
    configure(ground, max_steps=1)
    run, provider = ground.submit(), Holding()
    asyncio.run(drive(Held(ground.take()), parts(ground, provider, peek)))
    assert (ground.row(run).error_code, provider.ends) == ("max_steps", ["thread/run 1"])
    is_free(ground, provider)


def test_a_tool_that_is_missing_ends_the_one_that_waits(ground: Ground) -> None:
    """Expected: the attempt has failed and its run is cancelled; the next, elsewhere, begins another in its time."""
    run, provider = ground.submit(), Holding()
    claim = ground.take("w1")
    bench = parts(ground, provider, peek)
    asyncio.run(drive_and_lose_tool(Held(claim), bench, provider))
    assert provider.ends == ["thread/run 1"]
    assert ground.row(run).seconds_left == pytest.approx(claim.seconds_left, abs=30)
    ground.make_due(run)
    asyncio.run(drive(Held(ground.take("w2")), parts(ground, provider, peek)))
    assert (ground.status(run), ground.row(run).attempt) == (Status.COMPLETED, 2)
    assert provider.created[1].previous is None
    assert provider.created[1].input == ()
    assert [one.name for one in provider.created[1].answers] == ["peek"]


async def drive_and_lose_tool(held: Held, bench: Parts, provider: Holding) -> None:
    """Drive a run whose worker has the tool no more when it is asked for."""
    look = provider.look

    async def losing(provider_id: str) -> Look:
        found = await look(provider_id)
        if isinstance(found, NeedsTools):
            bench.registry._tools.clear()
        return found

    provider.look = losing  # type: ignore[method-assign]
    try:
        await drive(held, bench)
    finally:
        provider.look = look  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("why", "limit", "status"), [("cancel", 60.0, Status.CANCELLED), ("time limit", 0.3, Status.EXPIRED)]
)
def test_what_waits_for_a_tool_is_cancelled(ground: Ground, why: str, limit: float, status: Status) -> None:
    """Expected: a cancel ends the tool, the end of the run's time waits for the tool's limit; then the run is ended."""
    run, provider, began = ground.submit(), Holding(), asyncio.Event()

    async def endless(name: str) -> str:
        """Wait for something that never comes."""
        began.set()
        await asyncio.Event().wait()
        return name

    bench = parts(ground, provider, tool(effect="read", name="peek", timeout=limit)(endless))
    held = Held(ground.take())

    async def story() -> None:
        driving = asyncio.create_task(drive(held, bench))
        await asyncio.wait_for(began.wait(), 20)
        if why == "cancel":
            held.tell(cancel=True)
        else:
            assert isinstance(held.runner, Runner)
            held.runner._pace.ends_at = 0.0
        await driving

    asyncio.run(story())
    assert (ground.status(run), provider.ends, provider.active) == (status, ["thread/run 1"], False)
    is_free(ground, provider)


def test_a_cancel_while_parked_cancels_what_waits(ground: Ground) -> None:
    """Expected: whoever claims the run carries the cancel out at the provider."""
    configure(ground, approval=["peek"])
    run, provider = ground.submit(), Holding()
    asyncio.run(drive(Held(ground.take()), parts(ground, provider, peek)))
    assert (ground.status(run), provider.active) == (Status.REQUIRES_ACTION, True)
    ground.write(asking.ask_cancel, run)
    claim = ground.take("w2")
    asyncio.run(drive(Held(claim, cancel=claim.cancelling), parts(ground, provider, peek)))
    assert (ground.status(run), provider.ends) == (Status.CANCELLED, ["thread/run 1"])
    is_free(ground, provider)


def test_outputs_that_may_be_there_are_given_again(ground: Ground) -> None:
    """Expected: a worker died with its intent to submit; the next submits to the same run, nothing is unknown."""
    run, provider = ground.submit(), Holding()
    bench = parts(ground, provider, peek)
    first = Held(ground.take("w1"))
    asyncio.run(drive_until_submit(first, bench, provider))
    ground.commit(first.claim, progress.intend, 1, None)
    ground.end_lease("w1")
    ground.write(leases.reap)
    asyncio.run(drive(Held(ground.take("w2")), parts(ground, provider, peek)))
    assert (ground.status(run), attempt(ground).unknown) == (Status.COMPLETED, False)
    assert [step.previous for step in provider.created] == [None, "thread/run 1"]


async def drive_until_submit(held: Held, bench: Parts, provider: Holding) -> None:
    """Drive a run up to its second create, which is never answered."""
    reached, create = asyncio.Event(), provider.create

    async def hanging(step: Step) -> Created:
        if step.previous is None:
            return await create(step)
        reached.set()
        return await asyncio.Future()

    provider.create = hanging  # type: ignore[method-assign]
    driving = asyncio.create_task(drive(held, bench))
    await asyncio.wait_for(reached.wait(), 20)
    driving.cancel()
    await asyncio.gather(driving, return_exceptions=True)
    provider.create = create  # type: ignore[method-assign]


def test_a_cancel_is_heard_while_the_held_run_is_ended(ground: Ground) -> None:
    """Expected: asked for while the failed run is let go at the provider, it ends the run as cancelled, at once."""
    configure(ground, max_steps=1)
    run, provider = ground.submit(), Holding()
    held, cancel = Held(ground.take()), provider.cancel

    async def telling(provider_id: str) -> None:
        ground.write(asking.ask_cancel, run)
        held.tell(cancel=True)
        await cancel(provider_id)

    provider.cancel = telling  # type: ignore[method-assign]
    asyncio.run(drive(held, parts(ground, provider, peek)))
    assert (ground.status(run), provider.ends) == (Status.CANCELLED, ["thread/run 1"])
