"""What steps with a completion window cost: less, however their run ends."""

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from tests.conformance.ground import Ground
from tests.unit.test_chain import drive, drive_and_tell
from tests.workbench import Provider, parts
from tools.registry import tool
from worker.backends.base import Created, Done, Ended, Failed, Look, NeedsTools, Pending
from worker.lifecycle import Status
from worker.models import Spending
from worker.response import Asked, Usage
from worker.run.flight import Flight
from worker.run.pace import Held, Pace
from worker.store import assistants, batches

USED = Usage(1_000, 100, 1.0)
ASKS = NeedsTools((Asked("call_1", "peek", '{"name": "x"}'),), USED, "item_1")
ANSWERS = Done("an answer", USED, "item_2")


@tool(effect="read")
def peek(name: str) -> str:
    """Read something."""
    return f"{name} was read"


@pytest.fixture
def ground(sqlite_url: str) -> Iterator[Ground]:
    """Give a database with an assistant that has a window, and a worker."""
    ground = Ground(sqlite_url)
    config = {"model": "m", "tools": ["peek"], "completion_window": "8h"}
    ground.assistant_id = ground.write(assistants.apply, "night", config)[0].id
    ground.boot()
    yield ground
    ground.close()


class Stopping(Provider):
    """Works until it is asked to cancel, and has used something by then."""

    def __init__(self) -> None:
        super().__init__(Pending())
        self.begun = asyncio.Event()

    async def look(self, provider_id: str) -> Look:
        self.begun.set()
        return await super().look(provider_id)

    async def cancel(self, provider_id: str) -> None:
        self._looks = [Failed("cancelled", "stopped", USED, transient=False)]


@pytest.mark.parametrize(
    ("looks", "status", "expected"),
    [
        ((ASKS, ANSWERS), Status.COMPLETED, 1.2),
        ((Failed("server_error", "try again", USED, transient=True), ANSWERS), Status.COMPLETED, 1.2),
        ((Failed("bad", "no", USED, transient=False),), Status.FAILED, 0.6),
        ((Failed("bad", "no", Usage(1_000, 100, None), transient=False),), Status.FAILED, None),
    ],
    ids=["each step", "each attempt", "a failure", "unknown"],
)
def test_a_run_costs_less(ground: Ground, looks: tuple[Ended, ...], status: Status, expected: float | None) -> None:
    """Expected: 40 per cent off everything that was used, tokens as they were; an unknown cost stays unknown."""
    run, provider = ground.submit(), Provider(*looks)
    while ground.status(run) is not status:
        ground.make_due(run)
        asyncio.run(drive(Held(ground.take()), parts(ground, provider, peek)))
    row = ground.row(run)
    assert (row.status, row.input_tokens) == (status, 1_000 * len(looks))
    assert row.cost_usd == (expected if expected is None else pytest.approx(expected))


def test_what_was_stopped_costs_less_too(ground: Ground) -> None:
    """Expected: what a cancelled step has used until then is counted at the same rate."""
    run, provider = ground.submit(), Stopping()
    asyncio.run(drive_and_tell(Held(ground.take()), parts(ground, provider, peek), provider.begun, cancel=True))
    assert ground.status(run) is Status.CANCELLED
    assert ground.row(run).cost_usd == pytest.approx(0.6)


def test_a_budget_counts_what_is_charged(ground: Ground) -> None:
    """Expected: the batch has spent what its run cost, not the Standard rates."""
    batch = ground.write(batches.create, "night", "Read.", None, 5.0)
    ground.submit(batch_id=batch)
    asyncio.run(drive(Held(ground.take()), parts(ground, Provider(ANSWERS), peek)))
    with ground.database.read() as connection:
        assert connection.execute(select(Spending.cost_usd)).scalar_one() == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("hours", "queued", "code"),
    [(1, True, None), (15, True, None), (15, False, None), (17, True, "stuck_in_queue"), (17, False, "step_timeout")],
)
def test_a_step_may_take_two_windows(ground: Ground, hours: float, queued: bool, code: str | None) -> None:
    """Expected: the limits of the settings, which are minutes, hold from then on; one of them where it is queued."""
    ground.submit(timeout=1e6)

    async def story() -> tuple[str, str] | None:
        bench = parts(ground, Provider(), **({} if queued else {"step_timeout": 60}))
        pace = Pace(Held(ground.take()), bench, lambda: True)
        flight = Flight(pace, Provider(), Created("response"), number=0, age=hours * 3600)
        return flight._overdue(Pending(queued=queued))

    found = asyncio.run(story())
    assert (found and found[0]) == code
