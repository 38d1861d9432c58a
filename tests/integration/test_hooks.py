"""Ends reach those who wait: hooks of runs and batches through the broker, notices for wait(), also after a loss."""

import os
import shutil
import signal
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.canvas import Signature

from tasks import batches, runs
from tasks.batches import Document
from tests.servers import REAPER, CeleryWorker, Simulator, Stack, stack, wait_until
from worker import embedded
from worker.broker.notice import Ear, Notices
from worker.errors import ThreadBusy
from worker.lifecycle import Status
from worker.producer import producer
from worker.settings import Settings
from worker.store import outbox

TICK = {"RUNWRIGHT_LEASE": "1"}
on_sqlite = pytest.mark.parametrize("stack", ["sqlite"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def worker(stack: Stack) -> Iterator[CeleryWorker]:
    """Run one worker whose tick comes about twice a second."""
    stack.assistant("clerk")
    with stack.worker(**TICK) as worker:
        yield worker


def received(queue: str) -> dict[str, Any]:
    """Return the next message of a queue as the worker of another code base would get it."""
    url = os.environ["REDIS_URL"]
    with Celery("shop", broker=url, set_as_current=False) as shop, shop.connection_for_read() as connection:
        waiting = connection.SimpleQueue(queue)
        message = waiting.get(timeout=20)
        message.ack()
        waiting.close()
    args, kwargs, _ = message.payload
    return {"task": message.headers["task"], "id": message.headers["id"], "args": args, "kwargs": kwargs}


def pending() -> bool:
    with producer().database.read() as connection:
        return outbox.waiting(connection)


@on_sqlite
@pytest.mark.usefixtures("worker")
def test_hooks_reach_their_queues() -> None:
    """A run, one cancelled in line, a batch, and a run of the Celery door: each in its queue with what it came to."""
    done = runs.submit(
        assistant="clerk", input="[[say ok]]", on_end=Signature("shop.done", (7,), {"a": 1}, queue="one")
    )
    line = runs.submit(assistant="clerk", input="hello", queue="nobody", on_end="shop.cancelled@two")
    assert line.cancel() is Status.CANCELLED
    documents = [Document("a.txt", "[[say a]]"), Document("b.pdf", None, "damaged")]
    hook = Signature("shop.batch", ("mine",), immutable=True, options={"queue": "four"})
    batch_id = batches.submit(producer(), "clerk", "Do it.", documents, on_end="shop.batch@three")
    batches.submit(producer(), "clerk", "Do it.", documents[1:], on_end=hook)

    told = {"thread_id": done.thread_id, "batch_id": None, "status": "completed", "error_code": None}
    first = received("one")
    assert first == {**first, "task": "shop.done", "args": [{"id": done.id, **told}, 7], "kwargs": {"a": 1}}
    second = received("two")
    assert (second["args"][0]["id"], second["args"][0]["status"]) == (line.id, "cancelled")
    statuses = {"completed": 1, "unreadable": 1}
    assert received("three")["args"] == [{"id": batch_id, "statuses": statuses, "documents": 2}]
    assert received("four")["args"] == ["mine"]


@on_sqlite
@pytest.mark.usefixtures("worker")
def test_the_celery_door_takes_both_options() -> None:
    """on_end is a JSON dict there; a busy thread fails the task with the words of ThreadBusy."""
    busy = runs.submit(assistant="clerk", input="[[hang]]", thread="busy")
    url = os.environ["REDIS_URL"]
    with Celery("shop", broker=url, backend=url, set_as_current=False) as shop:

        def sent(**options: Any) -> Any:
            asked = {"assistant": "clerk", "input": "[[say ok]]", **options}
            return shop.send_task("runs.submit", kwargs=asked, queue="runwright.default")

        refused = sent(thread="busy", on_busy="reject")
        wrong = [sent(on_end={"task": "t", "options": {"countdown": 1}}), sent(on_busy="never")]
        accepted = sent(on_end={"task": "shop.done", "args": [1]})
        with pytest.raises(Exception, match=f"thread 'busy' is busy: run {busy.id}") as raised:
            refused.get(timeout=20)
        assert type(raised.value).__name__ == "ThreadBusy"
        for result in wrong:
            with pytest.raises(Exception, match=r"countdown|on_busy"):
                result.get(timeout=20)
        assert accepted.get(timeout=20)["status"] == "completed"
    assert received("celery")["args"][0]["id"] == accepted.id
    with pytest.raises(ThreadBusy):
        runs.submit(assistant="clerk", input="no", thread="busy", on_busy="reject")
    busy.cancel()
    busy.wait(20)


@on_sqlite
@pytest.mark.usefixtures("worker")
def test_wait_wakes_by_notice(record_property: Any) -> None:
    """From the end in the row to the return of wait(): far below the pause between two looks at the row."""

    def latency(_: int) -> float:
        ended = runs.submit(assistant="clerk", input="[[latency 0.4]]").wait(20).finished_at
        assert ended is not None
        return (datetime.now(UTC) - ended).total_seconds()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(latency, range(8)))
    record_property("wake_up_seconds", found)
    assert statistics.median(found) < 1.0


@on_sqlite
@pytest.mark.usefixtures("worker")
def test_a_cancel_in_line_wakes_who_waits() -> None:
    """The producer that cancels it publishes its end: another one is woken before its next look."""
    line = runs.submit(assistant="clerk", input="hello", queue="nobody")
    with ThreadPoolExecutor(1) as pool, producer().ear(line.id) as ear:
        before = time.monotonic()
        waiting = pool.submit(ear.wait, 20)
        line.cancel()
        waiting.result(20)
    assert time.monotonic() - before < 2
    assert line.wait(1).status is Status.CANCELLED


@on_sqlite
@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("notices", ["dead", "none"])
def test_wait_works_without_redis(notices: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that is away, or none at all: wait() looks at the row, and keeps its limit."""
    dead = Notices(Settings(redis_url="redis://127.0.0.1:1/0"))
    run = runs.submit(assistant="clerk", input="[[latency 0.3]]")
    monkeypatch.setattr(type(producer()), "ear", lambda _self, run_id: Ear(dead if notices == "dead" else None, run_id))
    with pytest.raises(TimeoutError, match=run.id):
        run.wait(0.05)
    assert run.wait(20).status is Status.COMPLETED


def test_a_redis_that_dies_before_the_delivery(tmp_path: Path, sqlite_url: str, simulator: Simulator) -> None:
    """The run ends and wait() returns without it; when it is back, empty, the hook and the result arrive."""
    server = embedded.start(tmp_path)
    REAPER.tell("+", server.pid)
    with stack(tmp_path, sqlite_url, server.url, simulator) as ground, ground.worker(**TICK):
        ground.assistant("clerk")
        hook = "shop.done@shop"
        request = runs.RunRequest(assistant="clerk", input="[[latency 1]][[say on]]", on_end=hook, store_result=True)
        (run,) = runs.submit_many([request])
        wait_until(lambda: run.status() is Status.IN_PROGRESS, "the run to be driven")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(run.wait, 20)
            os.kill(server.pid, signal.SIGKILL)
            assert server.process is not None
            server.process.wait()
            assert waiting.result(20).output_text == "on"
        assert pending()
        shutil.rmtree(tmp_path / "valkey" / "appendonlydir")
        again = embedded.start(tmp_path)
        REAPER.tell("+", again.pid)
        try:
            assert received("shop")["args"][0]["id"] == run.id
            with Celery("shop", broker=again.url, backend=again.url, set_as_current=False) as shop:
                assert shop.AsyncResult(run.id).get(timeout=20)["output_text"] == "on"
            wait_until(lambda: not pending(), "the outbox to be empty")
        finally:
            server.users.close()
            again.stop()
            REAPER.tell("-", again.pid)
            REAPER.tell("-", server.pid)
