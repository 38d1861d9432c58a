"""A worker whose lease has run out stops nothing at the provider: the run may be another's by now."""

import asyncio
from collections.abc import Callable

import pytest

from tests.conformance.ground import Ground
from tests.workbench import Provider, parts
from worker.backends.base import Created, Done
from worker.response import Usage
from worker.run.flight import Flight
from worker.run.pace import HandOver, Held, Pace


class Stoppable(Provider):
    """Counts the cancels; what it is asked about has ended."""

    def __init__(self) -> None:
        super().__init__(Done("an answer", Usage(), "item_1"))
        self.cancelled: list[str] = []

    async def cancel(self, provider_id: str) -> None:
        self.cancelled.append(provider_id)


def stopped(ground: Ground, provider: Provider, alive: Callable[[Held], bool]) -> object:
    """Return how a step ended that its worker stops, where `alive` says whether the lease holds."""
    ground.submit()
    held = Held(ground.take())

    async def story() -> object:
        pace = Pace(held, parts(ground, provider), lambda: alive(held))
        return await Flight(pace, provider, Created("response"), number=0).stopped()

    return asyncio.run(story())


def test_a_lost_lease_stops_nothing(ground: Ground) -> None:
    """Expected: let go as soon as the worker knows, without a request."""
    provider = Stoppable()

    def lost(held: Held) -> bool:
        held.tell(stop=True)
        return False

    with pytest.raises(HandOver):
        stopped(ground, provider, lost)
    assert provider.cancelled == []


def test_a_lease_that_is_renewed_late_costs_time_only(ground: Ground) -> None:
    """Expected: the step is stopped once, when the lease holds again."""
    provider = Stoppable()
    answers = iter([False, False])
    seen: list[int] = []

    def alive(_held: Held) -> bool:
        seen.append(len(provider.cancelled))
        return next(answers, True)

    assert isinstance(stopped(ground, provider, alive), Done)
    assert (provider.cancelled, seen) == (["response"], [0, 0, 0])
