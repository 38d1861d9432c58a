"""Real workers on servers that keep nothing: the conversation is ours, a step lives on its connection."""

import signal
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from tasks import runs
from tests.servers import CeleryWorker, Stack, wait_until
from worker.lifecycle import Status
from worker.models import Attempt, Item
from worker.producer import producer

pytestmark = pytest.mark.parametrize("stack", ["postgresql"], indirect=True, scope="module")

TOOLS = '[[call calculate {"expression": "1 + 2"}]][[call calculate {"expression": "3 * 4"}]]'
QUIET = ("--without-mingle", "--without-gossip")
PROTOCOLS = ("chat", "responses-stateless")


@pytest.fixture(scope="module")
def worker(stack: Stack) -> Iterator[CeleryWorker]:
    """Run a worker beside a server without state."""
    stack.simulator.settings(stateless=True)
    for protocol in PROTOCOLS:
        stack.assistant(protocol, backend=protocol, tools=["calculate"])
    with stack.worker(*QUIET, RUNWRIGHT_LEASE="2") as worker:
        yield worker
    stack.simulator.settings(stateless=False)


def requests(stack: Stack, run_id: str) -> tuple[int, int]:
    """Return the completions, or responses, of a run and its requests."""
    counted = stack.simulator.counters()["by_run"].get(run_id, {"provider_runs": 0, "requests": 0})
    return counted["provider_runs"], counted["requests"]


def open_now(stack: Stack) -> int:
    return int(stack.simulator.counters(by_run=False)["streams_open"])


def kept() -> list[dict[str, object]]:
    """Return the items of all conversations, the newest first."""
    with producer().database.read() as connection:
        return list(connection.execute(select(Item.item).order_by(Item.id.desc())).scalars())


def reissued(run_id: str) -> list[int]:
    with producer().database.read() as connection:
        return list(connection.execute(select(Attempt.reissued).where(Attempt.run_id == run_id)).scalars())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_run_with_tools_completes(stack: Stack, worker: CeleryWorker, protocol: str) -> None:
    """Expected: one request for each step, both calls answered, tokens and cost told, no connection left."""
    view = runs.submit(assistant=protocol, input=f"{TOOLS}[[say fifteen]]").wait(30)
    assert (view.status, view.output_text) == (Status.COMPLETED, "fifteen")
    assert [call["output"] for call in view.tool_calls] == ["3", "12"]
    assert requests(stack, view.id) == (2, 2)
    assert view.usage["output_tokens"]
    assert view.cost_usd
    wait_until(lambda: open_now(stack) == 0, "the streams to be closed")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_next_run_sees_what_was_said(stack: Stack, worker: CeleryWorker, protocol: str) -> None:
    """Expected: the server, which refuses a call without its output, is given the whole conversation and takes it."""
    thread = f"thread of {protocol}"
    first = runs.submit(assistant=protocol, input=f"{TOOLS}[[say one]]", thread=thread).wait(30)
    second = runs.submit(assistant=protocol, input="[[say two]]", thread=thread).wait(30)
    assert [view.status for view in (first, second)] == [Status.COMPLETED] * 2
    said = [item.get("role") or item["type"] for item in reversed(kept())]
    between = (
        ["assistant", "tool", "tool"] if protocol == "chat" else ["function_call"] * 2 + ["function_call_output"] * 2
    )
    assert said[-len(between) - 4 :] == ["user", *between, "assistant", "user", "assistant"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("events", [0, 2])
def test_a_stream_that_breaks_is_asked_for_again(
    stack: Stack, worker: CeleryWorker, protocol: str, events: int
) -> None:
    """Expected: the run completes in its second attempt, and what broke has left nothing in the conversation."""
    view = runs.submit(assistant=protocol, input=f"[[cut {events}]][[say whole]]").wait(30)
    assert (view.status, view.output_text, view.attempts) == (Status.COMPLETED, "whole", 2)
    newest = kept()
    assert [item["role"] for item in newest[:2]] == ["assistant", "user"]
    assert "whole" in str(newest[0])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_cancel_closes_the_connection(stack: Stack, worker: CeleryWorker, protocol: str) -> None:
    """Expected: the run is cancelled in seconds, and the server sees its client leave."""
    handle = runs.submit(assistant=protocol, input="[[hang]]")
    wait_until(lambda: open_now(stack) == 1, "the stream")
    handle.cancel()
    assert handle.wait(30).status is Status.CANCELLED
    wait_until(lambda: open_now(stack) == 0, "the stream to be closed")


def test_a_step_of_a_worker_that_died_is_asked_for_again(stack: Stack, worker: CeleryWorker) -> None:
    """Expected: another worker asks for the step again, which is counted; calls that ran do not run again."""
    handle = runs.submit(assistant="chat", input=f"{TOOLS}[[then]][[latency 3]][[say again]]")
    wait_until(lambda: requests(stack, handle.id)[0] == 2, "the second step")
    worker.send(signal.SIGKILL)
    with stack.worker(*QUIET):
        view = handle.wait(60)
    assert (view.status, view.output_text, view.attempts) == (Status.COMPLETED, "again", 1)
    assert requests(stack, view.id)[0] == 3
    assert (reissued(view.id), [call["output"] for call in view.tool_calls]) == ([1], ["3", "12"])
