"""A worker that follows its steps on streams: no looks, and nothing is lost or made twice when a stream breaks."""

import signal
from collections.abc import Iterator

import pytest

from tasks import runs
from tests.servers import CeleryWorker, Stack, wait_until
from worker.lifecycle import Status

pytestmark = pytest.mark.parametrize("stack", ["postgresql"], indirect=True, scope="module")

SUM = '[[call calculate {"expression": "1 + 2"}]]'
QUIET = ("--without-mingle", "--without-gossip")
# Beside a stream the next look would come too late for every test here.
LATE = {"RUNWRIGHT_POLL_MAX": "60"}


@pytest.fixture(scope="module")
def follower(stack: Stack) -> Iterator[CeleryWorker]:
    """Run a worker that looks beside a stream after a minute."""
    stack.assistant("clerk", tools=["calculate"], stream=True)
    with stack.worker(*QUIET, **LATE) as worker:
        yield worker


def requests(stack: Stack, run_id: str) -> tuple[int, int]:
    """Return the provider runs and the requests of a run."""
    counted = stack.simulator.counters()["by_run"][run_id]
    return counted["provider_runs"], counted["requests"]


def open_now(stack: Stack) -> int:
    return int(stack.simulator.counters(by_run=False)["streams_open"])


def test_a_run_that_is_followed_needs_no_look(stack: Stack, follower: CeleryWorker) -> None:
    """Expected: two steps are two requests, and each stream is closed with its step."""
    view = runs.submit(assistant="clerk", input=f"{SUM}[[say three]]").wait(30)
    assert (view.status, view.output_text, view.tool_calls[0]["output"]) == (Status.COMPLETED, "three", "3")
    assert view.usage["output_tokens"]
    assert requests(stack, view.id) == (2, 2)
    wait_until(lambda: open_now(stack) == 0, "the streams to be closed")


def test_a_stream_that_breaks_is_looked_after(stack: Stack, follower: CeleryWorker) -> None:
    """Expected: cut after its last delta or with nothing to say but the id, the same response is polled to its end."""
    cut = [f"[[cut {events}]][[latency 0]][[say {events}]]" for events in (1, 5)]
    views = [handle.wait(30) for handle in [runs.submit(assistant="clerk", input=text) for text in cut]]
    assert [(view.status, view.output_text) for view in views] == [(Status.COMPLETED, "1"), (Status.COMPLETED, "5")]
    assert {requests(stack, view.id) for view in views} == {(1, 2)}


def test_a_create_without_its_first_event_is_adopted(stack: Stack, follower: CeleryWorker) -> None:
    """Expected: the connection breaks before the id is told; the one response is found in the conversation."""
    view = runs.submit(assistant="clerk", input="[[cut 0]][[say found]]").wait(30)
    assert (view.status, view.output_text, view.unknown_steps) == (Status.COMPLETED, "found", 1)
    assert stack.provider_runs(view.id) == 1


def test_a_cancel_leaves_the_stream(stack: Stack, follower: CeleryWorker) -> None:
    """Expected: the response is stopped at the provider, the stream closed, the run cancelled."""
    handle = runs.submit(assistant="clerk", input="[[hang]]")
    wait_until(lambda: open_now(stack) == 1, "the stream")
    handle.cancel()
    assert handle.wait(30).status is Status.CANCELLED
    wait_until(lambda: open_now(stack) == 0, "the stream to be closed")


def test_streams_are_let_go_with_their_runs(stack: Stack, follower: CeleryWorker) -> None:
    """Expected: SIGTERM closes all streams and hands the runs over; another worker looks at the same responses."""
    handles = [runs.submit(assistant="clerk", input="[[hang]]") for _ in range(20)]
    wait_until(lambda: open_now(stack) == 20, "all streams")
    assert follower.stop(signal.SIGTERM, 20) == 0
    wait_until(lambda: open_now(stack) == 0, "the streams to be closed")
    assert {requests(stack, handle.id) for handle in handles} == {(1, 1)}
    with stack.worker(*QUIET):
        wait_until(lambda: all(requests(stack, handle.id) > (1, 1) for handle in handles), "looks")
    assert {requests(stack, handle.id)[0] for handle in handles} == {1}
    assert {(view.attempts, len(view.provider_ids)) for view in (handle.result() for handle in handles)} == {(1, 1)}
