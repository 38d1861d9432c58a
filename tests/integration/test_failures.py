"""What goes wrong at the provider and in tools, and what becomes of the run, its thread and its provider run."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from sqlalchemy import func, select

from tasks import runs
from tasks.runs import RunHandle
from tests.servers import CeleryWorker, Stack, running, wait_until
from worker.errors import UsageError
from worker.lifecycle import Status
from worker.models import Run
from worker.producer import producer
from worker.store import reading
from worker.store.reading import RunView

pytestmark = [
    pytest.mark.parametrize("stack", ["postgresql"], indirect=True, scope="module"),
    pytest.mark.usefixtures("worker"),
]

FLAWED = '''
"""Tools that go wrong in every way."""
import threading
from tools.registry import tool

_both = threading.Barrier(2)
_released = threading.Event()

@tool
def explode(reason: str) -> str:
    """Raise."""
    raise RuntimeError(reason)

@tool(timeout=0.2)
def linger() -> str:
    """Outlast the limit."""
    threading.Event().wait(1)
    return "late"

@tool
def meet(name: str) -> str:
    """Wait for another call of this function."""
    _both.wait(10)
    return f"{name} was met"

@tool(effect="read")
def wait_for_release() -> str:
    """Wait for release()."""
    return "released" if _released.wait(20) else "never released"

@tool
def release() -> str:
    """Let the waiting call go."""
    _released.set()
    return "done"
'''
TOOLS = ["calculate", "explode", "linger", "meet", "wait_for_release", "release"]
SUM = '[[call calculate {"expression": "1 + 2"}]]'


@pytest.fixture(scope="module")
def worker(stack: Stack) -> Iterator[CeleryWorker]:
    """Run one worker, with the flawed tools, for all tests of this module."""
    (stack.folder / "flawed.py").write_text(FLAWED)
    stack.assistant("clerk", tools=TOOLS)
    stack.assistant("hasty", tools=TOOLS, max_steps=2)
    with stack.worker(RUNWRIGHT_TOOL_MODULES="flawed", PYTHONPATH=str(stack.folder)) as worker:
        yield worker


def asked(text: str, assistant: str = "clerk", **options: Any) -> RunHandle:
    return runs.submit(assistant=assistant, input=text, **options)


def carried(text: str, assistant: str = "clerk", **options: Any) -> RunView:
    """Submit one run and return it when it has ended."""
    return asked(text, assistant, **options).wait(20)


def in_flight(handle: RunHandle) -> RunView:
    """Return the run when the provider works on it."""

    def look() -> RunView | None:
        view = handle.result()
        assert not view.ended, view
        return view if view.provider_ids and view.status is Status.IN_PROGRESS else None

    view = wait_until(look, "a response in flight")
    assert view is not None
    return view


def at_provider(stack: Stack, provider_id: str) -> str | None:
    """Return the status of a response as the simulator has it."""
    with openai.OpenAI(base_url=stack.simulator.url, api_key="any", max_retries=0) as client:
        return client.responses.retrieve(provider_id).status


def completed_after(thread: str) -> RunView:
    """Carry a further run on the thread, which must not have been poisoned."""
    view = carried("[[say fine]]", thread=thread)
    assert (view.status, view.output_text, view.error) == (Status.COMPLETED, "fine", None)
    return view


@pytest.fixture
def faulty(stack: Stack) -> Iterator[None]:
    """Let one in five creates and polls answer 429 and another one 500."""
    stack.simulator.settings(rate_limit_share=0.2, error_share=0.2, retry_after=0.1)
    yield
    stack.simulator.settings(rate_limit_share=0.0, error_share=0.0, retry_after=1.0)


@pytest.mark.usefixtures("faulty")
def test_refused_requests_are_repeated_until_they_pass(stack: Stack) -> None:
    """429 and 500 on creates and polls cost time, no attempt and no second response."""
    handles = [asked(f"{SUM}[[say done]]", thread=f"refused-{number % 10}") for number in range(20)]
    views = [handle.wait(40) for handle in handles]
    assert {(view.status, view.attempts) for view in views} == {(Status.COMPLETED, 1)}
    rejected = stack.simulator.counters()["rejected"]
    assert rejected.get("rate_limit_exceeded", 0) > 5, rejected
    assert rejected.get("server_error", 0) > 5, rejected
    assert {stack.provider_runs(view.id) for view in views} == {2}


def test_a_failure_that_may_pass_costs_an_attempt_and_keeps_the_line() -> None:
    """The second attempt completes; the next run of the thread waits for it although it was due before."""
    first = asked("[[fail server_error Try again x1]][[say first]]", thread="again")
    second = asked("[[say second]]", thread="again")
    one, two = first.wait(20), second.wait(20)
    assert (one.status, one.attempts, one.output_text, one.error) == (Status.COMPLETED, 2, "first", None)
    assert (two.status, two.attempts) == (Status.COMPLETED, 1)
    assert one.finished_at is not None
    assert two.started_at is not None
    assert one.finished_at <= two.started_at


def test_a_failure_that_will_not_pass_ends_the_run_at_once() -> None:
    """Code and message are the provider's."""
    view = carried("[[fail invalid_prompt Not like this]]")
    assert (view.status, view.attempts) == (Status.FAILED, 1)
    assert view.error == {"code": "invalid_prompt", "message": "Not like this"}


def test_attempts_are_used_up() -> None:
    """A failure that does not pass fails the run after max_attempts."""
    view = carried("[[fail server_error Still down]]", max_attempts=2)
    assert (view.status, view.attempts) == (Status.FAILED, 2)
    assert view.error == {"code": "server_error", "message": "Still down"}


def test_an_incomplete_answer_keeps_its_text_and_reason() -> None:
    """What was written before the cut is the output, and the thread goes on."""
    view = carried("[[incomplete]][[say one two three four five six]]", thread="cut")
    assert view.status is Status.INCOMPLETE
    assert view.error is not None
    assert view.error["code"] == "max_output_tokens"
    assert view.output_text
    assert "one two three four five six".startswith(view.output_text)
    completed_after("cut")


def test_a_run_that_takes_too_long_expires(stack: Stack) -> None:
    """Its response is stopped at the provider, and the thread goes on."""
    view = carried("[[hang]]", timeout=0.6, thread="late")
    assert view.status is Status.EXPIRED
    assert view.error is not None
    assert view.error["code"] == "timeout"
    assert at_provider(stack, view.provider_ids[0]) == "cancelled"
    completed_after("late")


def test_steps_are_bounded() -> None:
    """A model that keeps asking for tools fails at max_steps; its last call is answered by the thread's next run."""
    view = carried(f"{SUM}[[then]]{SUM}[[then]]{SUM}", "hasty", thread="loop")
    assert (view.status, len(view.provider_ids)) == (Status.FAILED, 2)
    assert view.error is not None
    assert view.error["code"] == "max_steps"
    completed_after("loop")


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        ("no_such_tool {}", "unknown_tool", "There is no tool named 'no_such_tool'"),
        ('calculate {"formula": "1"}', "bad_arguments", "expression"),
        ("calculate {broken", "bad_arguments", "Invalid JSON"),
        ('explode {"reason": "boiler pressure"}', "exception", "boiler pressure"),
        ("linger {}", "in_doubt", "may or may not have taken effect"),
    ],
)
def test_a_tool_error_is_an_output_that_the_model_reads(call: str, error: str, told: str) -> None:
    """The call is kept as failed, the run completes, and the model quotes the error in its answer."""
    view = carried(f"[[call {call}]]")
    (kept,) = view.tool_calls
    assert (view.status, kept["status"], kept["error"]) == (Status.COMPLETED, "failed", error)
    assert told in kept["output"]
    assert view.output_text
    assert told.split("'", maxsplit=1)[0] in view.output_text


def test_calls_of_one_step_run_side_by_side() -> None:
    """Each of the two returns only while the other one runs."""
    view = carried('[[call meet {"name": "Ann"}]][[call meet {"name": "Bob"}]]')
    assert [call["output"] for call in view.tool_calls] == ["Ann was met", "Bob was met"]


def test_a_tool_that_this_worker_does_not_have_fails_the_run(stack: Stack) -> None:
    """The error names the tool and where to look."""
    view = carried("[[say anything]]", stack.assistant("stranger", tools=["elsewhere"]))
    assert view.status is Status.FAILED
    assert view.error is not None
    assert view.error["code"] == "missing_tool"
    assert "'elsewhere'" in str(view.error["message"])
    assert "RUNWRIGHT_TOOL_MODULES" in str(view.error["message"])


def test_a_queued_run_is_cancelled_at_once() -> None:
    """No worker serves its queue, so nobody has to carry it out; a second cancel changes nothing."""
    handle = asked("[[say never]]", queue="nobody")
    assert handle.cancel() is Status.CANCELLED
    assert handle.cancel() is Status.CANCELLED
    view = handle.result()
    assert (view.status, view.attempts, view.provider_ids) == (Status.CANCELLED, 0, [])


def test_cancels_in_line_and_in_flight(stack: Stack) -> None:
    """One that waits in line ends at once, one in flight when its response is stopped; the rest of the line goes on."""
    first = asked("[[hang]]", thread="line")
    waiting = asked("[[say never]]", thread="line")
    last = asked("[[say last]]", thread="line")
    (provider_id,) = in_flight(first).provider_ids
    assert waiting.cancel() is Status.CANCELLED
    assert first.cancel() in {Status.IN_PROGRESS, Status.CANCELLING}
    assert first.wait(20).status is Status.CANCELLED
    assert at_provider(stack, provider_id) == "cancelled"
    assert last.wait(20).output_text == "last"
    assert stack.provider_runs(waiting.id) == 0


def test_a_run_cancelled_while_its_tool_runs_leaves_the_thread_whole() -> None:
    """The tool ends, the run is cancelled all the same, and its open call does not block the next run."""
    handle = asked("[[call wait_for_release {}]]", thread="tool")
    wait_until(lambda: [call["status"] for call in handle.result().tool_calls] == ["running"], "the tool to run")
    handle.cancel()
    carried("[[call release {}]]")
    assert handle.wait(20).status is Status.CANCELLED
    completed_after("tool")


def test_a_failed_run_that_left_calls_open_does_not_poison_the_thread() -> None:
    """The response that got the outputs failed, so the provider still waits for them: the next run brings them."""
    view = carried(f"{SUM}[[then]][[fail invalid_prompt No]]", thread="open")
    assert (view.status, view.tool_calls[0]["output"]) == (Status.FAILED, "3")
    completed_after("open")


def test_a_failed_run_is_tried_again_as_the_same_run(stack: Stack) -> None:
    """It goes on from its last step with the outputs it has, and completes; a completed one is refused."""
    view = carried(f"{SUM}[[then]][[fail invalid_prompt No x2]][[say at last]]")
    assert view.status is Status.FAILED
    again = runs.retry(view.id).wait(20)
    assert (again.id, again.status, again.attempts) == (view.id, Status.COMPLETED, 2)
    assert (again.output_text, again.error) == ("at last", None)
    assert [call["output"] for call in again.tool_calls] == ["3"]
    assert stack.provider_runs(view.id) == 3
    with pytest.raises(UsageError, match="has its result"):
        runs.retry(view.id)


def claims(run_id: str) -> list[str]:
    """Return the workers that claimed a run, in order."""
    with producer().database.read() as connection:
        return [event["worker"] for event in reading.events(connection, run_id) if event["name"] == "claimed"]


def test_runs_outlive_their_workers(stack: Stack) -> None:
    """One worker is told to stop and leaves at once, one is killed: another goes on with the same responses."""
    stack.assistant("plain", tools=["calculate"])
    soon = {"RUNWRIGHT_LEASE": "1.5"}
    told, killed = (stack.start("-Q", f"runwright.{q}", **soon) for q in ("told", "killed"))
    with running(told), running(killed):
        for worker in (told, killed):
            worker.wait_until_ready()
        handles = [
            asked(f"{SUM}[[latency 2]][[say on]]", "plain", queue=queue)
            for queue in ("told", "killed")
            for _ in range(3)
        ]
        first = {handle.id: in_flight(handle).provider_ids for handle in handles}
        assert told.stop(seconds=10) == 0
        killed.kill()
    with stack.worker("-Q", "runwright.told,runwright.killed", **soon):
        views = [handle.wait(30) for handle in handles]
    assert {(view.status, view.output_text, view.attempts) for view in views} == {(Status.COMPLETED, "on", 1)}
    for view in views:
        assert view.provider_ids[:1] == first[view.id]
        assert len(view.provider_ids) == stack.provider_runs(view.id) == 2
        assert len(set(claims(view.id))) == 2


def test_nothing_is_left_held(stack: Stack) -> None:
    """All runs of this module have ended, nobody owns one, and no two responses of a conversation overlapped."""
    with producer().database.read() as connection:
        left = select(func.count()).select_from(Run).where(Run.turn | Run.owner.is_not(None))
        assert connection.execute(left).scalar_one() == 0
    assert stack.simulator.counters()["overlaps"] == 0
