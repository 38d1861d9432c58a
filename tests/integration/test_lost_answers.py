"""Creates whose answer is lost, steps that never end: the paid run is found again, and nothing is created twice."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from sqlalchemy import select

from tasks import runs
from tasks.runs import RunHandle
from tests.servers import CeleryWorker, Stack
from worker.lifecycle import Status
from worker.models import Attempt, Conversation
from worker.producer import producer
from worker.store.reading import RunView

pytestmark = pytest.mark.parametrize("stack", ["postgresql"], indirect=True, scope="module")

SUM = '[[call calculate {"expression": "1 + 2"}]]'


@pytest.fixture(scope="module", autouse=True)
def workers(stack: Stack) -> Iterator[list[CeleryWorker]]:
    """Run one worker that fails what stays unknown, and one that creates it again, on a queue of its own."""
    stack.assistant("clerk", tools=["calculate"])
    impatient = {"RUNWRIGHT_QUEUED_TIMEOUT": "1", "RUNWRIGHT_CANCEL_TIMEOUT": "2"}
    again = {"RUNWRIGHT_ON_UNKNOWN": "create", "RUNWRIGHT_ADOPTION_WAIT": "0.2"}
    with (
        stack.worker("--without-mingle", "--without-gossip", **impatient) as first,
        stack.worker("-Q", "runwright.again", "--without-mingle", "--without-gossip", **again) as second,
    ):
        yield [first, second]


def carried(words: str, **options: Any) -> RunView:
    """Submit a run and wait for its end."""
    return submitted(words, **options).wait(30)


def submitted(words: str, **options: Any) -> RunHandle:
    return runs.submit(assistant="clerk", input=words, **options)


def of_attempt(view: RunView) -> Any:
    """Return the row of a run's last attempt."""
    with producer().database.read() as connection:
        rows = connection.execute(select(Attempt).where(Attempt.run_id == view.id).order_by(Attempt.number))
        return rows.all()[-1]


def conversations(thread: str) -> list[Any]:
    """Return the conversations that a thread has had."""
    with producer().database.read() as connection:
        found = select(Conversation).where(Conversation.thread_id == thread).order_by(Conversation.created_at)
        return list(connection.execute(found).all())


def code(view: RunView) -> str | None:
    return view.error["code"] if view.error else None


def test_a_response_whose_id_was_lost_is_adopted(stack: Stack) -> None:
    """One response at the provider, its answer ours; what it cost is not known; the thread goes on where it was."""
    view = carried("[[drop after]][[say found again]]", thread="adopted")
    assert (view.status, view.output_text, view.usage["input_tokens"]) == (Status.COMPLETED, "found again", None)
    assert view.unknown_steps == 1
    assert (of_attempt(view).adopted, of_attempt(view).unknown, stack.provider_runs(view.id)) == (1, False, 1)
    assert carried("[[say on]]", thread="adopted").status is Status.COMPLETED
    assert len(conversations("adopted")) == 1


def test_calls_of_a_lost_response_are_adopted(stack: Stack) -> None:
    """The calls that it asked for run once, and so does the step after that."""
    view = carried(f"[[drop after]]{SUM}[[say three]]", thread="asked")
    assert (view.status, view.output_text) == (Status.COMPLETED, "three")
    assert [call["output"] for call in view.tool_calls] == ["3"]
    assert stack.provider_runs(view.id) == 2


def test_what_is_not_found_is_unknown_and_not_created_again(stack: Stack) -> None:
    """The run has failed, visibly; its thread goes on in a fresh conversation; a retry by hand gives the answer."""
    first = submitted("[[drop before]][[say second try]]", thread="unknown")
    second = submitted("[[say next]]", thread="unknown")
    view = first.wait(30)
    assert (view.status, code(view), of_attempt(view).unknown) == (Status.FAILED, "unknown_outcome", True)
    assert (stack.provider_runs(view.id), second.wait(30).status) == (0, Status.COMPLETED)
    left, fresh = conversations("unknown")
    assert left.left_at is not None
    assert fresh.left_at is None
    assert runs.retry(view.id).wait(30).output_text == "second try"


def test_a_late_create_is_waited_for(stack: Stack) -> None:
    """The connection breaks, and the provider begins a while later all the same."""
    view = carried("[[late 0.5]][[say late]]")
    assert (view.status, view.output_text, stack.provider_runs(view.id)) == (Status.COMPLETED, "late", 1)


def test_where_it_is_asked_for_the_step_is_created_again(stack: Stack) -> None:
    """Nothing was there: the second create is the only one that was carried out; the unknown one is counted."""
    view = carried("[[drop before]][[say again]]", queue="again")
    assert (view.status, view.output_text) == (Status.COMPLETED, "again")
    assert (of_attempt(view).unknown, stack.provider_runs(view.id)) == (True, 1)


def test_a_response_that_still_goes_on_is_not_created_again(stack: Stack) -> None:
    """The conversation is locked while it does, and then its result is there."""
    view = carried("[[drop after]][[latency 2]][[say slow]]", queue="again")
    assert (view.status, view.output_text, stack.provider_runs(view.id)) == (Status.COMPLETED, "slow", 1)


def test_a_step_that_sticks_in_the_queue_is_tried_again(stack: Stack) -> None:
    """The watchdog stops it at the provider and takes a further attempt in the same conversation."""
    view = carried("[[stuck]][[say moving]]", thread="stuck")
    assert (view.status, view.output_text, view.attempts) == (Status.COMPLETED, "moving", 2)
    assert len(conversations("stuck")) == 1


def test_a_step_has_a_time_limit_of_its_own(stack: Stack) -> None:
    """Cancelled at the provider, tried again, and failed with its own code when no attempt is left."""
    stack.assistant("hurried", step_timeout=0.5, max_attempts=2)
    view = runs.submit(assistant="hurried", input="[[hang]]").wait(30)
    assert (view.status, code(view), view.attempts) == (Status.FAILED, "step_timeout", 2)
    assert len(view.provider_ids) == 2


def test_a_thread_whose_conversation_is_gone_goes_on_in_a_fresh_one(stack: Stack) -> None:
    """Somebody deleted it at the provider: the run is tried again with the thread's messages in a new conversation."""
    assert carried("[[say first]]", thread="deleted").status is Status.COMPLETED
    (gone,) = conversations("deleted")
    with openai.OpenAI(base_url=stack.simulator.url, api_key="any") as client:
        client.conversations.delete(gone.id)
    view = carried("[[say second]]", thread="deleted")
    assert (view.status, view.output_text, view.attempts) == (Status.COMPLETED, "second", 2)
    assert [one.left_at is not None for one in conversations("deleted")] == [True, False]
