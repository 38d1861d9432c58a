"""What Celery's own world sees of runs: Flower, inspect, revoke, results, and producers in another code base."""

import json
import os
import socket
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult
from sqlalchemy import func, select

from tasks import runs
from tests.nursery import Nursery
from tests.servers import CeleryWorker, Process, Stack, running, wait_until
from worker import urls
from worker.lifecycle import Status
from worker.models import Run
from worker.producer import producer

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True, scope="module")

TEXT = "words-that-nobody-else-may-see"


@pytest.fixture(scope="module", autouse=True)
def worker(stack: Stack) -> Iterator[CeleryWorker]:
    """Run one worker for all tests of this module."""
    stack.assistant("clerk", tools=["calculate"])
    with stack.worker() as worker:
        yield worker


@pytest.fixture(scope="module")
def flower(stack: Stack, worker: CeleryWorker) -> Iterator[str]:
    """Run Flower until it knows the worker; returns the address of its API."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["flower", "--address=127.0.0.1", f"--port={port}"]
    env = {**stack.env, "FLOWER_UNAUTHENTICATED_API": "true"}
    address = f"http://127.0.0.1:{port}/api"

    def knows_worker() -> bool:
        try:
            return worker.node in fetched(f"{address}/workers?status=1")
        except OSError:
            return False

    program = [sys.executable, "-m", "celery", "-A", "worker.app", *arguments]
    with running(Process(program, stack.folder / "flower.log", env)) as process:
        process.wait_for(knows_worker, "Flower to see the worker's heartbeat")
        yield address


@pytest.fixture(scope="module")
def shop() -> Iterator[Celery]:
    """Return a producer of another code base: it knows the broker, the names and nothing else."""
    url = os.environ["REDIS_URL"]
    with Celery("shop", broker=url, backend=url, set_as_current=False) as app:
        app.conf.control_exchange = "runwright"
        yield app


def fetched(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=5) as answer:
        return json.load(answer)


def sent(shop: Celery, text: str, task_id: str | None = None, **options: Any) -> AsyncResult:
    asked = {"assistant": "clerk", "input": text} | options
    return shop.send_task("runs.submit", kwargs=asked, queue="runwright.default", task_id=task_id or str(uuid.uuid4()))


def test_a_run_is_a_row_in_flower(flower: str) -> None:
    """Name, id, names as arguments, the end, attempts as retries; nothing of what was said."""
    handle = runs.submit(assistant="clerk", input=f"{TEXT}[[fail server_error {TEXT} x1]][[say {TEXT}]]")
    failed = runs.submit(assistant="clerk", input=f"[[fail invalid_prompt {TEXT}]]")
    assert handle.wait(20).output_text == TEXT
    failed.wait(20)

    def row(run_id: str, state: str) -> dict[str, Any] | None:
        found = fetched(f"{flower}/tasks").get(run_id)
        return found if found and found["state"] == state else None

    done = wait_until(lambda: row(handle.id, "SUCCESS"), "the completed run in Flower")
    assert done is not None
    assert (done["name"], done["uuid"], done["retries"]) == ("runs.run", handle.id, 1)
    assert json.loads(done["args"]) == ["clerk", handle.thread_id]
    bad = wait_until(lambda: row(failed.id, "FAILURE"), "the failed run in Flower")
    assert bad is not None
    assert "invalid_prompt" in bad["exception"]
    everything = json.dumps([fetched(f"{flower}/tasks"), fetched(f"{flower}/task/info/{handle.id}")])
    assert TEXT not in everything


def test_inspect_lists_what_a_worker_drives(worker: CeleryWorker, stack: Stack, nursery: Nursery) -> None:
    """`celery inspect runs` answers for each worker by its node name; the end takes the run off the list."""
    handle = runs.submit(assistant="clerk", input="[[hang]]")
    wait_until(lambda: handle.status() is Status.IN_PROGRESS, "the run to be driven")
    told = nursery.run("celery", "-A", "worker.app", "inspect", "runs", "--json", env=stack.env)
    assert told.returncode == 0, told.stderr
    (driven,) = json.loads(told.stdout)[worker.node]
    assert driven == {"id": handle.id, "thread_id": handle.thread_id, "assistant": "clerk", "attempt": 1}
    handle.cancel()
    handle.wait(20)


def test_a_result_is_had_by_the_task_s_id(shop: Celery) -> None:
    """The end of the run, not of the message: id, thread, status and text."""
    result = sent(shop, '[[call calculate {"expression": "6*7"}]][[say it is 42]]', thread="shop-1")
    assert result.get(timeout=20) == {
        "id": result.id,
        "thread_id": "shop-1",
        "status": "completed",
        "output_text": "it is 42",
    }
    assert runs.handle(result.id).status() is Status.COMPLETED


def test_a_failed_run_raises_its_error(shop: Celery) -> None:
    """get() raises with the provider's code and message."""
    result = sent(shop, "[[fail invalid_prompt Not like this]]")
    with pytest.raises(Exception, match="failed: invalid_prompt: Not like this"):
        result.get(timeout=20)
    assert result.state == "FAILURE"


def test_revoking_a_run_s_id_cancels_it(shop: Celery, stack: Stack) -> None:
    """The response is stopped at the provider and the result is REVOKED."""
    result = sent(shop, "[[hang]]")
    wait_until(lambda: stack.provider_runs(result.id), "the response in flight")
    shop.control.revoke(result.id)
    assert runs.handle(result.id).wait(20).status is Status.CANCELLED
    with pytest.raises(Exception, match="cancelled"):
        result.get(timeout=20)
    assert result.state == "REVOKED"


def test_a_message_that_is_delivered_twice_makes_one_run(shop: Celery, stack: Stack) -> None:
    """The task's id is the run's id: the second delivery finds the first one's row."""
    run_id = str(uuid.uuid4())
    first, second = (sent(shop, "[[say once]]", run_id) for _ in range(2))
    marker = sent(shop, "[[say after both]]")
    assert first.get(timeout=20)["output_text"] == second.get(timeout=20)["output_text"] == "once"
    marker.get(timeout=20)
    with producer().database.read() as connection:
        assert connection.execute(select(func.count()).where(Run.id == run_id)).scalar_one() == 1
    assert stack.provider_runs(run_id) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"assistant": "nobody"}, "no assistant 'nobody'"),
        ({"colour": "red"}, "unknown argument 'colour'"),
        ({"priority": 11}, "priority 11: from 0 to 9"),
        ({"priority": "high"}, "priority"),
        ({"available_at": "tomorrow"}, "available_at"),
        ({"available_at": "2030-01-01T00:00:00"}, "time zone"),
        ({"metadata": "m"}, "metadata"),
        ({"timeout": "soon"}, "timeout"),
        ({"input": ["hello"]}, "input"),
        ({"input": None}, "input"),
    ],
)
def test_a_wrong_submit_fails_and_says_why(shop: Celery, options: dict[str, Any], told: str) -> None:
    """The task ends as FAILURE with the words that the Python door would raise; no run is made."""
    result = sent(shop, "hello", **options)
    with pytest.raises(Exception, match=told) as raised:
        result.get(timeout=20)
    assert (result.state, type(raised.value).__name__) == ("FAILURE", "UsageError")
    with producer().database.read() as connection:
        assert not connection.execute(select(func.count()).where(Run.id == result.id)).scalar_one()


def test_an_idempotency_key_holds_through_this_door(shop: Celery) -> None:
    """The second task tells at once which run the key has; the same key with other input fails."""
    handle = runs.submit(assistant="clerk", input="[[say keyed]]", idempotency_key="order-7")
    again = sent(shop, "[[say keyed]]", idempotency_key="order-7").get(timeout=20)
    assert (again["id"], again["thread_id"]) == (handle.id, handle.thread_id)
    with pytest.raises(Exception, match="other input"):
        sent(shop, "[[say else]]", idempotency_key="order-7").get(timeout=20)


def test_nothing_ever_goes_to_celery_s_own_queue() -> None:
    """After all of the above no queue and no binding named `celery` exists."""
    with redis.Redis.from_url(urls.redis_client_url(os.environ["REDIS_URL"]), decode_responses=True) as client:
        names = set(client.scan_iter())
    assert "_kombu.binding.runwright.default" in names
    assert not names & {"celery", "_kombu.binding.celery", "_kombu.binding.celeryev", "_kombu.binding.celery.pidbox"}
