"""Runs leave nothing for the collector of reference cycles, which would cost a tenth of a worker's CPU."""

import asyncio
import gc
from collections import Counter
from typing import Any

from tests.conformance.ground import Ground
from tests.driving import drive_on
from tests.workbench import Provider, parts
from tools.registry import tool
from worker.backends.base import Created, Done, Look, NeedsTools, Pending, Step
from worker.errors import ProviderError
from worker.lifecycle import Status
from worker.parts import Parts
from worker.response import Asked, Usage
from worker.run.pace import Held
from worker.store import assistants

RUNS = 20
HELD_BACK = 4  # fewer: each is held back for a second


@tool(effect="read")
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def course(run: int) -> list[Look]:
    """Return what the looks at one run say: a step that calls a tool, and one that answers."""
    call = Asked(f"call_{run}", "add", '{"a": 1, "b": 2}')
    return [
        Pending(),
        NeedsTools((call,), Usage(1, 1), "item_1"),
        Pending(),
        Pending(),
        Done("3", Usage(1, 1), "item_2"),
    ]


async def carry(ground: Ground, bench: Parts) -> None:
    """Submit a run and drive it to its end, in a task of its own as an engine does."""
    run = ground.submit(None)
    await asyncio.create_task(drive_on(Held(ground.take()), bench))
    assert ground.status(run) is Status.COMPLETED


def test_a_run_leaves_no_cycles(ground: Ground) -> None:
    """Expected: all that a run took is freed as soon as it has ended, its looks and its tools included."""
    ground.assistant_id = ground.write(assistants.apply, "helper", {"model": "m", "tools": ["add"]})[0].id
    assert left_by_runs(ground, Provider(*(look for run in range(RUNS + 1) for look in course(run)))) == {}


def test_a_limit_leaves_no_cycles(ground: Ground) -> None:
    """Expected: a run whose create was refused first is freed as one that was not; there may be thousands at once."""
    assert left_by_runs(ground, Limited(Done("3", Usage(1, 1), "item_1")), HELD_BACK) == {}


class Limited(Provider):
    """Refuses each first try of a create."""

    def __init__(self, *looks: Look) -> None:
        super().__init__(*looks)
        self._refused: set[str] = set()

    async def create(self, step: Step) -> Created:
        if step.run_id not in self._refused:
            self._refused.add(step.run_id)
            raise ProviderError("http_429", "too many", transient=True, status=429)
        return await super().create(step)


def left_by_runs(ground: Ground, provider: Provider, runs: int = RUNS) -> dict[str, int]:
    """Return what so many runs leave to the collector at least once each."""

    async def story() -> Counter[str]:
        bench = parts(ground, provider, add)
        await carry(ground, bench)  # what is made once for all
        gc.collect()
        gc.disable()
        try:
            for _ in range(runs):
                await carry(ground, bench)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            return Counter(_named(left) for left in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    left = asyncio.run(story())
    return {name: count for name, count in left.items() if count >= runs}


def _named(left: Any) -> str:
    return f"{type(left).__qualname__} {getattr(left, '__qualname__', '')}"
