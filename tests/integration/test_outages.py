"""A provider that goes away, and what its documents leave open: no attempt is burnt, the promises hold either way."""

from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from tasks import runs
from tasks.runs import RunHandle
from tests.servers import CeleryWorker, Stack, wait_until
from worker.lifecycle import Status

pytestmark = pytest.mark.parametrize("stack", ["postgresql"], indirect=True, scope="module")

RUNS = 50
OUTAGE = 9.0  # seconds: longer than the silence that makes an outage
SUM = '[[call calculate {"expression": "1 + 2"}]]'
FAILS_ONCE = f"{SUM}[[fail server_error later x1]]"


@pytest.fixture(scope="module", autouse=True)
def worker(stack: Stack) -> Iterator[CeleryWorker]:
    """Run one worker whose pauses grow far beyond the outages here: only the end of an outage calls runs back early."""
    stack.assistant("clerk", tools=["calculate"])
    patient = {"RUNWRIGHT_RETRY_MAX": "120", "RUNWRIGHT_RETRY_MIN": "2"}
    with stack.worker("--without-mingle", "--without-gossip", **patient) as worker:
        yield worker


@pytest.fixture(autouse=True)
def calm(stack: Stack) -> Iterator[dict[str, Any]]:
    """Put every switch of the simulator back after a test."""
    before = stack.simulator.settings()
    yield before
    stack.simulator.settings(**before)


def submitted(words: str, **options: Any) -> RunHandle:
    return runs.submit(assistant="clerk", input=words, **options)


def test_an_outage_costs_time_and_no_attempt(stack: Stack) -> None:
    """Runs wait in their first attempt, whether in flight or not yet begun, and come back soon, though not at once."""
    before = stack.simulator.counters(by_run=False)["provider_runs"]
    waiting = [submitted(f"[[latency 3]][[say {number}]]") for number in range(RUNS)]
    wait_until(lambda: stack.simulator.counters(by_run=False)["provider_runs"] >= before + RUNS, "all in flight")
    stack.simulator.settings(outage="drop")
    out_since = monotonic()
    began = [submitted(f"[[say {number}]]") for number in range(RUNS)]
    wait_until(lambda: monotonic() - out_since > OUTAGE, "the outage to last", 2 * OUTAGE)
    stack.simulator.settings(outage="off")
    views = [handle.wait(40) for handle in [*waiting, *began]]
    assert {(view.status, view.attempts) for view in views} == {(Status.COMPLETED, 1)}


@pytest.mark.parametrize("leaves", ["none", "input", "all"])
def test_what_a_failed_response_leaves_in_its_conversation_changes_nothing(stack: Stack, leaves: str) -> None:
    """The run is tried again, its tool runs once, and the thread goes on, whatever the provider keeps."""
    stack.simulator.settings(items_on_failure=leaves)
    first = submitted(f"{FAILS_ONCE}[[say three]]", thread=f"kept-{leaves}")
    second = submitted(f"[[hang]]{SUM}", thread=f"kept-{leaves}")
    third = submitted("[[say on]]", thread=f"kept-{leaves}")
    view = first.wait(30)
    assert (view.status, view.output_text, view.attempts) == (Status.COMPLETED, "three", 2)
    assert [call["output"] for call in view.tool_calls] == ["3"]
    wait_until(lambda: second.result().provider_ids, "the second run's response")
    second.cancel()
    assert (second.wait(30).status, third.wait(30).output_text) == (Status.CANCELLED, "on")


def test_a_cancel_that_completes_all_the_same_is_a_cancel(stack: Stack) -> None:
    """Final here; the calls it asks for too late do not run, and the next run goes on."""
    stack.simulator.settings(cancel_completes=True)
    first = submitted(f"[[latency 1.5]]{SUM}[[say too late]]", thread="cancelled")
    second = submitted("[[say on]]", thread="cancelled")
    wait_until(lambda: first.result().provider_ids, "the response")
    first.cancel()
    assert (first.wait(30).status, second.wait(30).output_text) == (Status.CANCELLED, "on")
    assert stack.simulator.counters()["overlaps"] == 0


def test_without_a_lock_in_the_queue_a_thread_still_has_one_run_at_a_time(stack: Stack) -> None:
    """The order is ours to keep: the provider's lock is a safety net that may have holes."""
    stack.simulator.settings(lock_while_queued=False, queued_seconds=0.3, items_lock=True)
    line = [submitted(f"{SUM}[[say {number}]]", thread="unlocked") for number in range(3)]
    assert [handle.wait(30).output_text for handle in line] == ["0", "1", "2"]
    assert stack.simulator.counters()["overlaps"] == 0
