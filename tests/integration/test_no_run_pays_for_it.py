"""Workers that are killed, frozen, blocked or late, a database that halts: no run pays, no thread is poisoned."""

import os
import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from celery import Celery
from celery.exceptions import TaskRevokedError
from sqlalchemy import select, text

from tasks import runs
from tasks.runs import RunHandle, RunRequest
from tests.servers import CeleryWorker, Stack, simulator, wait_until
from worker.lifecycle import Status
from worker.models import Run, Thread, ToolCall, Worker
from worker.producer import producer
from worker.store import reading

pytestmark = pytest.mark.parametrize("stack", ["postgresql"], indirect=True, scope="module")

TOOLS = '''
"""A tool that no event loop survives."""
import time
from tools.registry import tool

@tool
async def block_the_loop() -> str:
    """Hold the loop for longer than anybody waits."""
    time.sleep(120)
    return "never told"
'''
AT_ONCE = ("--without-mingle", "--without-gossip")  # a second less for each start
SUM = '[[call calculate {"expression": "1 + 2"}]]'


@pytest.fixture(scope="module", autouse=True)
def clerk(stack: Stack) -> str:
    """Make the assistant of all runs here, and the module of its worst tool."""
    (stack.folder / "worst.py").write_text(TOOLS)
    return stack.assistant("clerk", tools=["calculate", "block_the_loop"])


@pytest.fixture(scope="module", autouse=True)
def worker(stack: Stack, clerk: str) -> Iterator[CeleryWorker]:
    """Run one worker on the default queue for the tests that need no other."""
    with stack.worker(*AT_ONCE, **worst(stack)) as worker:
        yield worker


def serving(queue: str) -> tuple[str, ...]:
    """Return the options of a worker that serves one queue."""
    return ("-Q", f"runwright.{queue}", *AT_ONCE)


def worst(stack: Stack, **changes: str) -> dict[str, str]:
    """Return the variables of a worker here: the bad tool, and a lease as short as it may be."""
    return {"RUNWRIGHT_TOOL_MODULES": "worst", "PYTHONPATH": str(stack.folder), "RUNWRIGHT_LEASE": "1", **changes}


def asked(words: str, **options: Any) -> RunHandle:
    return runs.submit(assistant="clerk", input=words, **options)


def ended(handle: RunHandle, seconds: float = 20) -> tuple[Status, str | None]:
    view = handle.wait(seconds)
    return view.status, view.output_text


def at_provider(handle: RunHandle, number: int = 1) -> list[str]:
    """Return the ids of a run's responses when there are so many."""

    def enough() -> list[str]:
        ids = handle.result().provider_ids
        return ids if len(ids) >= number else []

    return wait_until(enough, f"{number} responses of a run")


def claimants(handle: RunHandle) -> list[str]:
    """Return the workers that claimed a run, in order."""
    with producer().database.read() as connection:
        return [event["worker"] for event in reading.events(connection, handle.id) if event["name"] == "claimed"]


def ids_of(process: CeleryWorker) -> set[str]:
    """Return the workers' rows that belong to a process."""
    with producer().database.read() as connection:
        return set(connection.execute(select(Worker.id).where(Worker.pid == process.pid)).scalars())


def starts(handle: RunHandle) -> list[tuple[str, int]]:
    """Return status and number of starts of each call in the ledger of a run."""
    calls = select(ToolCall.status, ToolCall.starts).where(ToolCall.run_id == handle.id).order_by(ToolCall.position)
    with producer().database.read() as connection:
        return [(row.status, row.starts) for row in connection.execute(calls)]


def test_calls_that_come_too_late_poison_no_thread(stack: Stack) -> None:
    """The response asks for a function before its run is stopped: the call never runs, and the next run answers it."""
    rare = {"RUNWRIGHT_POLL_MIN": "5", "RUNWRIGHT_POLL_MAX": "5"}
    with stack.worker(*serving("late"), **worst(stack), **rare):
        late = [asked(SUM, thread="expired", queue="late", timeout=3), asked(SUM, thread="cancelled", queue="late")]
        after = [asked("[[say fine]]", thread=thread, queue="late") for thread in ("expired", "cancelled")]
        (response,) = at_provider(late[1])
        with openai.OpenAI(base_url=stack.simulator.url, api_key="any") as client:
            wait_until(lambda: client.responses.retrieve(response).status == "completed", "the calls at the provider")
        late[1].cancel()
        assert [handle.wait(20).status for handle in late] == [Status.EXPIRED, Status.CANCELLED]
        assert [ended(handle) for handle in after] == [(Status.COMPLETED, "fine")] * 2
    assert [starts(handle) for handle in late] == [[("failed", 0)]] * 2
    assert [stack.provider_runs(handle.id) for handle in [*late, *after]] == [1] * 4


def test_a_run_tried_again_after_its_successor_answers_for_itself(stack: Stack) -> None:
    """The successor's response has closed its calls, so it asks anew: its own answer, and not the successor's."""
    first = asked(f"{SUM}[[then]][[fail invalid_prompt No x2]][[say first]]", thread="reopened")
    assert ended(first) == (Status.FAILED, None)
    assert ended(asked("[[say second]]", thread="reopened")) == (Status.COMPLETED, "second")
    assert ended(runs.retry(first.id)) == (Status.COMPLETED, "first")
    assert [call["output"] for call in first.result().tool_calls] == ["3", "3"]
    assert stack.provider_runs(first.id) == 4


def test_a_killed_worker_leaves_at_most_the_create_in_flight_in_doubt(stack: Stack) -> None:
    """Runs that only queued for the one open request are carried on, and none is created twice."""
    requests = [RunRequest(assistant="clerk", input="[[slow 0.1]][[say on]]", queue="narrow") for _ in range(30)]
    with stack.worker(*serving("narrow"), **worst(stack), RUNWRIGHT_REQUEST_LIMIT="1") as killed:
        handles = runs.submit_many(requests)
        wait_until(lambda: sum(bool(stack.provider_runs(handle.id)) for handle in handles[:1]), "the first create")
        killed.kill()
    ran = [handle.id for handle in handles if stack.provider_runs(handle.id)]
    assert len(ran) < len(handles), "all creates were through before the kill"
    with stack.worker(*serving("narrow"), **worst(stack)):
        views = [handle.wait(30) for handle in handles]
    failed = [view for view in views if view.status is not Status.COMPLETED]
    assert [view.error and view.error["code"] for view in failed] in ([], ["unknown_outcome"])
    assert max(stack.provider_runs(view.id) for view in views) == 1


def test_a_frozen_worker_begins_again(stack: Stack) -> None:
    """Others have ended its runs meanwhile: it overwrites nothing, registers anew and carries further runs."""
    with stack.worker(*serving("frozen"), **worst(stack)) as frozen:
        handles = [asked(f"{SUM}[[latency 1]][[say on]]", queue="frozen") for _ in range(3)]
        first = [at_provider(handle) for handle in handles]
        (old,) = ids_of(frozen)
        frozen.send(signal.SIGSTOP)
        with stack.worker(*serving("frozen"), **worst(stack)) as other:
            views = [handle.wait(20) for handle in handles]
            assert {(view.status, view.output_text, view.attempts) for view in views} == {(Status.COMPLETED, "on", 1)}
            assert [view.provider_ids[:1] for view in views] == first
            assert other.stop() == 0
        frozen.send(signal.SIGCONT)
        (new,) = frozen.wait_for(lambda: ids_of(frozen) - {old}, "a new registration")
        further = asked("[[say further]]", queue="frozen")
        assert ended(further) == (Status.COMPLETED, "further")
        assert claimants(further) == [new]
    assert [handle.result() for handle in handles] == views
    assert [stack.provider_runs(handle.id) for handle in handles] == [2] * 3


def test_a_database_that_halts_longer_than_the_leases_costs_time_only(stack: Stack) -> None:
    """All leases run out together; afterwards every worker still has its runs, and none has failed."""
    with stack.workers(2, *serving("halted"), **worst(stack)) as workers:
        before = [ids_of(worker) for worker in workers]
        handles = [asked(f"{SUM}[[latency 1]][[say on]]", queue="halted") for _ in range(8)]
        for handle in handles:
            at_provider(handle)
        with producer().database.write() as connection:
            connection.execute(text("LOCK TABLE runwright_workers, runwright_runs IN ACCESS EXCLUSIVE MODE"))
            connection.execute(text("SELECT pg_sleep(3)"))
        views = [handle.wait(20) for handle in handles]
        assert {(view.status, view.output_text, view.attempts) for view in views} == {(Status.COMPLETED, "on", 1)}
        assert [ids_of(worker) for worker in workers] == before
    assert Counter(len(claimants(handle)) for handle in handles) == {1: 8}
    assert [stack.provider_runs(handle.id) for handle in handles] == [2] * 8


def test_a_worker_whose_loop_is_blocked_gives_way(stack: Stack) -> None:
    """A tool holds the loop: the process ends by itself, another one carries on, and the call is answered in doubt."""
    with stack.worker(*serving("blocked"), **worst(stack)) as blocked:
        other = asked("[[latency 3]][[say on]]", queue="blocked")
        at_provider(other)
        caller = asked("[[call block_the_loop {}]]", queue="blocked")
        with stack.worker(*serving("blocked"), **worst(stack)):
            views = [handle.wait(20) for handle in (other, caller)]
        assert blocked.popen.wait(10) == os.EX_SOFTWARE
    assert [(view.status, view.attempts) for view in views] == [(Status.COMPLETED, 1)] * 2
    assert [call["error"] for call in views[1].tool_calls] == ["in_doubt"]
    assert len(set(claimants(other))) == 2
    assert stack.provider_runs(other.id) == 1


def test_a_waiting_run_that_is_cancelled_is_told_to_celery() -> None:
    """No worker ever held it; who waits for its result hears of the cancel within seconds all the same."""
    url = os.environ["REDIS_URL"]
    hanging = asked("[[hang]]", thread="door")
    at_provider(hanging)
    with Celery("shop", broker=url, backend=url, set_as_current=False) as shop:
        shop.conf.control_exchange = "runwright"
        words = {"assistant": "clerk", "input": "[[say never]]", "thread": "door"}
        result = shop.send_task("runs.submit", kwargs=words, queue="runwright.default", task_id=str(uuid.uuid4()))
        wait_until(lambda: known(result.id), "the run of the message")
        assert runs.cancel(result.id) is Status.CANCELLED
        with pytest.raises(TaskRevokedError):
            result.get(timeout=8)
    hanging.cancel()
    assert hanging.wait(20).status is Status.CANCELLED


def known(run_id: str) -> bool:
    with producer().database.read() as connection:
        return connection.execute(select(Run.id).where(Run.id == run_id)).scalar_one_or_none() is not None


def conversation(thread: str) -> str | None:
    with producer().database.read() as connection:
        return connection.execute(select(Thread.provider_id).where(Thread.id == thread)).scalar_one()


def said(url: str, conversation: str) -> list[tuple[str, str]]:
    """Return role and text of each message in a conversation at the provider."""
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        items = client.conversations.items.list(conversation, order="asc", limit=100)
        messages = [item for item in items if item.type == "message"]
    return [(item.role, str(getattr(item.content[0], "text", ""))) for item in messages]


def test_a_thread_leaves_a_conversation_whose_response_may_go_on(stack: Stack, tmp_path: Path) -> None:
    """The provider is gone when the cancel is due: the next run goes on in a new conversation, with all before it."""
    options = ("--latency", "0.02:0.1")
    with simulator(tmp_path, os.environ, *options) as provider:
        changes = {"OPENAI_BASE_URL": provider.url, "RUNWRIGHT_CANCEL_TIMEOUT": "1"}
        with stack.worker(*serving("left"), **worst(stack), **changes):
            assert ended(asked("[[say one]]", thread="left", queue="left")) == (Status.COMPLETED, "one")
            before = conversation("left")
            hanging = asked("[[hang]]", thread="left", queue="left")
            at_provider(hanging)
            provider.process.kill()
            hanging.cancel()
            assert hanging.wait(20).status is Status.CANCELLED
            port = provider.url.rsplit(":", 1)[1].removesuffix("/v1")
            with simulator(tmp_path, os.environ, *options, "--port", port) as again:
                assert ended(asked("[[say two]]", thread="left", queue="left")) == (Status.COMPLETED, "two")
                after = conversation("left")
                assert after is not None
                assert after != before
                told = said(again.url, after)
    assert told == [
        ("user", "[[say one]]"),
        ("assistant", "one"),
        ("user", "[[hang]]"),
        ("user", "[[say two]]"),
        ("assistant", "two"),
    ]


def test_nothing_is_left_held() -> None:
    """All runs of this module have ended and nobody owns one."""
    with producer().database.read() as connection:
        held = connection.execute(select(Run.id).where(Run.turn | Run.owner.is_not(None))).all()
    assert not held
