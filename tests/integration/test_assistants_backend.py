"""Real workers on a server of Assistants v2: runs that wait there for tools and people end well, however late."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tasks import approvals, runs
from tests.servers import CeleryWorker, Stack, wait_until
from worker.lifecycle import Status

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True, scope="module")

SUM = '[[call calculate {"expression": "1 + 2"}]]'
SEVEN = '[[call calculate {"expression": "7"}]]'  # where it is told of, the simulator sees no sum in it to do again
ALONE = ("--without-mingle", "--without-gossip")


@pytest.fixture(scope="module")
def clerk(stack: Stack) -> Iterator[CeleryWorker]:
    """Run a worker, and make two assistants: one of them needs a person's word."""
    stack.assistant("clerk", backend={"protocol": "assistants"}, tools=["calculate"])
    stack.assistant("careful", backend={"protocol": "assistants"}, tools=["calculate"], approval=["calculate"])
    before = stack.simulator.settings()
    stack.simulator.settings(poll_after_ms=20, cancelling_seconds=0.05)
    with stack.worker(*ALONE) as worker:
        yield worker
    stack.simulator.settings(**before)


def at_server(stack: Stack, path: str) -> list[dict[str, Any]]:
    """Return what a list at the server holds, oldest first."""
    headers = {"authorization": "Bearer sk-any", "openai-beta": "assistants=v2"}
    request = urllib.request.Request(f"{stack.simulator.url}{path}?order=asc&limit=100", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return list(json.load(answer)["data"])


def thread_of(handle: runs.RunHandle) -> str:
    """Return the path of a run's thread, from the id of its newest step."""
    return f"/threads/{handle.result().provider_ids[-1].partition('/')[0]}"


def statuses(stack: Stack, handle: runs.RunHandle) -> list[str]:
    """Return the statuses of all runs on the thread of a run."""
    return [one["status"] for one in at_server(stack, f"{thread_of(handle)}/runs")]


def asking(handle: runs.RunHandle) -> str:
    """Wait until a run waits for a person; returns its thread."""
    wait_until(lambda: any(one.run_id == handle.id for one in approvals.pending()), "the question")
    return thread_of(handle)


def test_a_run_with_tools(stack: Stack, clerk: CeleryWorker) -> None:
    """Expected: one run at the server for both steps, which got the output once; a second run follows on the thread."""
    thread = "with tools"
    first = runs.submit(assistant="clerk", thread=thread, input=f"{SUM}[[say three]]")
    second = runs.submit(assistant="clerk", thread=thread, input="[[say again]]")
    views = [first.wait(30), second.wait(30)]
    assert [(view.status, view.output_text) for view in views] == [
        (Status.COMPLETED, "three"),
        (Status.COMPLETED, "again"),
    ]
    assert [call["output"] for call in views[0].tool_calls] == ["3"]
    assert views[0].usage["input_tokens"]
    assert statuses(stack, first) == ["completed", "completed"]
    messages = at_server(stack, f"{thread_of(first)}/messages")
    assert [one["role"] for one in messages] == ["user", "assistant"] * 2
    assert [one["metadata"].get("run_id") for one in messages if one["role"] == "user"] == [first.id, second.id]


def test_a_configuration_is_one_assistant(stack: Stack, clerk: CeleryWorker) -> None:
    """Expected: many runs, and another worker later, find the same one; one that was deleted is made again."""
    many = [runs.submit(assistant="clerk", input="[[say one]]") for _ in range(10)]
    assert {handle.wait(30).status for handle in many} == {Status.COMPLETED}
    with stack.worker(*ALONE):
        many = [runs.submit(assistant="clerk", input="[[say two]]") for _ in range(10)]
        assert {handle.wait(30).status for handle in many} == {Status.COMPLETED}
    (made,) = at_server(stack, "/assistants")
    headers = {"authorization": "Bearer sk-any", "openai-beta": "assistants=v2"}
    gone = urllib.request.Request(f"{stack.simulator.url}/assistants/{made['id']}", method="DELETE", headers=headers)
    urllib.request.urlopen(gone, timeout=10).close()
    assert runs.submit(assistant="clerk", input="[[say three]]").wait(30).output_text == "three"
    (again,) = at_server(stack, "/assistants")
    assert again["metadata"] == made["metadata"]


def test_a_cancel_while_a_person_is_asked(stack: Stack, clerk: CeleryWorker) -> None:
    """Expected: the run that waits at the server is cancelled there, and the thread is free for the next one."""
    handle = runs.submit(assistant="careful", thread="cancelled", input=SUM)
    asking(handle)
    assert statuses(stack, handle) == ["requires_action"]
    handle.cancel()
    assert handle.wait(30).status is Status.CANCELLED
    assert statuses(stack, handle) == ["cancelled"]
    after = runs.submit(assistant="clerk", thread="cancelled", input="[[say well]]").wait(30)
    assert (after.status, after.output_text) == (Status.COMPLETED, "well")
    assert statuses(stack, handle) == ["cancelled", "completed"]


def test_an_approval_that_outlives_the_run_at_the_server(stack: Stack, clerk: CeleryWorker) -> None:
    """Expected: what expired is gone on from in another, which is told the output; no call, no input is twice."""
    stack.simulator.settings(expire_seconds=0.5)
    handle = runs.submit(assistant="careful", input=SEVEN)
    thread = asking(handle)
    wait_until(lambda: statuses(stack, handle) == ["expired"], "the run to expire")
    stack.simulator.settings(expire_seconds=600)
    approvals.approve(handle.id, by="ann")
    view = handle.wait(30)
    assert (view.status, view.attempts, [call["output"] for call in view.tool_calls]) == (Status.COMPLETED, 1, ["7"])
    assert statuses(stack, handle) == ["expired", "completed"]
    first, told, _answer = at_server(stack, f"{thread}/messages")
    assert first["content"][0]["text"]["value"] == SEVEN
    assert '"output": "7"' in told["content"][0]["text"]["value"]
    assert len(view.provider_ids) == 2
    used = [one["usage"]["prompt_tokens"] for one in at_server(stack, f"{thread}/runs")]
    assert view.usage["input_tokens"] == sum(used)
