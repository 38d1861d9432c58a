"""Two real workers under one limit of the provider, which only its headers tell them."""

import pytest

from tasks import runs
from tests.servers import Simulator, Stack
from worker.lifecycle import Status

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True, scope="module")


def test_two_workers_stay_within_the_limit(stack: Stack, simulator: Simulator) -> None:
    """Expected: of fifty creates at once hardly one is refused; else most would be, again and again."""
    simulator.settings(requests_per_minute=600, limit_burst=1.0)
    stack.assistant("bound")
    with stack.workers(2):
        handles = [runs.submit(assistant="bound", input="[[say done]]") for _ in range(50)]
        ends = {handle.wait(timeout=60).status for handle in handles}
    counted = simulator.counters(by_run=False)
    assert ends == {Status.COMPLETED}
    assert (counted["limit_granted"], counted["provider_runs"]) == (50, 50)
    assert counted["limit_refused"] <= 5
