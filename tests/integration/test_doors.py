"""Python's doors: in the caller's transaction or not, once for each key, rung after the commit if Redis is there."""

import asyncio
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from celery import Celery
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from tasks import runs
from tasks.runs import RunHandle, RunRequest
from tests.servers import CeleryWorker, Stack, wait_until
from worker import urls
from worker.broker import wire
from worker.errors import KeyReused, UnknownRun, UsageError
from worker.lifecycle import Status
from worker.models import Run
from worker.producer import producer

pytestmark = [
    pytest.mark.parametrize("stack", ["sqlite", "postgresql"], indirect=True, scope="module"),
    pytest.mark.usefixtures("worker"),
]


@pytest.fixture(scope="module")
def worker(stack: Stack) -> Iterator[CeleryWorker]:
    """Run one worker that looks for due runs only when it is rung, and holds one run at a time."""
    stack.assistant("clerk")
    with stack.worker(RUNWRIGHT_IDLE_POLL="600", RUNWRIGHT_MAX_IN_FLIGHT="1") as worker:
        yield worker


@pytest.fixture
def engine(stack: Stack) -> Iterator[Engine]:
    """Return the caller's own engine: as SQLAlchemy makes it, without a setting of ours."""
    engine = create_engine(stack.env["DATABASE_URL"])
    yield engine
    engine.dispose()


def asked(text: str = "[[say hello]]", **options: Any) -> RunHandle:
    return runs.submit(assistant="clerk", input=text, **options)


def is_there(run_id: str) -> bool:
    with producer().database.read() as connection:
        return bool(connection.execute(select(func.count()).where(Run.id == run_id)).scalar_one())


def rung(queue: str) -> bool:
    """Tell whether a doorbell of a queue that nobody serves has been rung."""
    with redis.Redis.from_url(urls.redis_client_url(os.environ["REDIS_URL"])) as client:
        return bool(client.llen(f"runwright.{queue}"))


def test_a_submit_is_rung_and_carried() -> None:
    """The doorbell alone brings the worker to it; the handle gives status, answer and tokens."""
    handle = asked(metadata={"order": 7}, thread="mine")
    assert handle.thread_id == "mine"
    view = handle.wait(20)
    assert (view.status, view.output_text, view.metadata) == (Status.COMPLETED, "hello", {"order": 7})
    assert handle.status() is Status.COMPLETED
    assert handle.result() == view == runs.handle(handle.id).result()
    assert view.usage["input_tokens"]


def test_a_session_s_commit_submits(engine: Engine) -> None:
    """Before it nobody sees the run; after it the ring brings the worker."""
    with Session(engine) as session:
        handle = asked(session=session)
        assert not is_there(handle.id)
        session.commit()
    assert handle.wait(20).status is Status.COMPLETED


def test_a_savepoint_is_no_commit(engine: Engine) -> None:
    """The ring waits for the commit that makes the runs visible."""
    with Session(engine) as session:
        asked(session=session)
        with session.begin_nested():
            handle = asked(session=session, queue="nobody")
        assert not is_there(handle.id)
        assert not rung("nobody")
        session.commit()
    assert rung("nobody")
    handle.cancel()


def test_a_session_s_rollback_leaves_nothing(engine: Engine) -> None:
    """No run, no ring; the session's next transaction is a new one."""
    with Session(engine) as session:
        lost = asked(session=session)
        session.rollback()
        assert not is_there(lost.id)
        kept = asked(session=session)
        session.commit()
    assert kept.wait(20).status is Status.COMPLETED
    assert not is_there(lost.id)
    with pytest.raises(UnknownRun, match=lost.id):
        lost.status()


def test_an_async_session_s_commit_submits(stack: Stack) -> None:
    """The same through aiosqlite and psycopg's async connection, rollback included."""

    async def both() -> tuple[RunHandle, RunHandle]:
        url = make_url(stack.env["DATABASE_URL"])
        engine = create_async_engine(url.set(drivername="sqlite+aiosqlite") if url.drivername == "sqlite" else url)
        async with AsyncSession(engine) as session:
            lost = await runs.submit_async(session, assistant="clerk", input="[[say lost]]")
            await session.rollback()
            kept = await runs.submit_async(session, assistant="clerk", input="[[say kept]]")
            await session.commit()
        await engine.dispose()
        return lost, kept

    lost, kept = asyncio.run(both())
    assert kept.wait(20).output_text == "kept"
    assert not is_there(lost.id)


def test_many_are_accepted_in_order_or_not_at_all() -> None:
    """Handles come in the order of the requests; one that is wrong keeps all of them out."""
    requests = [RunRequest(assistant="clerk", input=f"[[say {n}]]", thread=f"many-{n % 3}") for n in range(9)]
    handles = runs.submit_many(iter(requests))
    assert [handle.wait(20).output_text for handle in handles] == [str(n) for n in range(9)]
    wrong = [RunRequest(assistant="clerk", input="fine", id="never"), RunRequest(assistant="nobody", input="not fine")]
    with pytest.raises(UsageError, match="no assistant 'nobody' \\(there is: clerk\\)"):
        runs.submit_many(wrong)
    assert not is_there("never")


def test_a_key_gives_the_same_run_from_any_door(engine: Engine) -> None:
    """One run, whoever asks again; other input under the key is an error that leaves nothing behind."""
    first = asked("[[say keyed]]", idempotency_key="order-1")
    again = RunRequest(assistant="clerk", input="[[say keyed]]", idempotency_key="order-1")
    with Session(engine) as session:
        joined = asked("[[say keyed]]", idempotency_key="order-1", session=session)
        session.commit()
    assert [joined, *runs.submit_many([again, again])] == [first] * 3
    with pytest.raises(KeyReused, match="'order-1' belongs to a run with other input"):
        asked("[[say else]]", idempotency_key="order-1")
    assert first.wait(20).output_text == "keyed"
    assert asked("[[say keyed]]", idempotency_key="order-1") == first


def test_a_higher_priority_goes_first() -> None:
    """While the worker's one place is taken, what is asked last and most urgently is started first."""
    asked("[[latency 0.5]]")
    low, high = asked(priority=1), asked(priority=8)
    started = [handle.wait(20).started_at for handle in (high, low)]
    assert None not in started
    assert sorted(started, key=str) == started


def test_a_run_waits_until_it_is_available(stack: Stack) -> None:
    """It is not started before; then the scheduler's duty rings for it, through any worker."""
    moment = datetime.now(UTC) + timedelta(seconds=0.7)
    handle = asked(available_at=moment)
    asked("[[say meanwhile]]").wait(20)
    assert handle.status() is Status.QUEUED
    wait_until(lambda: datetime.now(UTC) > moment, "the moment")
    with Celery("beat", broker=stack.env["REDIS_URL"], set_as_current=False) as beat:
        beat.send_task(wire.RING_DUE, queue="runwright.default")
    view = handle.wait(20)
    assert view.started_at is not None
    assert view.started_at >= moment


def test_a_dead_redis_costs_no_run(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The submit commits, soon, and says in the log that it could not ring."""
    producer().database.close()
    producer.cache_clear()
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    with capture_logs() as logs:
        before = time.monotonic()
        handle = asked("[[say later]]")
        took = time.monotonic() - before
    producer().database.close()
    monkeypatch.undo()
    producer.cache_clear()
    assert [(line["event"], line["queue"]) for line in logs] == [("ring_failed", "default")]
    assert took < 5
    assert handle.status() is Status.QUEUED
    asked().wait(20)
    assert handle.wait(20).output_text == "later"


def test_waiting_has_a_limit() -> None:
    """TimeoutError names the run; a cancel ends it, and wait() returns it."""
    handle = asked("[[hang]]")
    with pytest.raises(TimeoutError, match=handle.id):
        handle.wait(0.2)
    handle.cancel()
    assert handle.wait(20).status is Status.CANCELLED
    assert handle.cancel() is Status.CANCELLED


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"input": ""}, "input: empty"),
        ({"queue": "runwright.default!"}, "queue 'runwright.default!'"),
        ({"priority": 10}, "priority 10: from 0 to 9"),
        ({"thread": ""}, "thread: between 1 and 200 characters, not 0"),
        ({"idempotency_key": "k" * 201}, "idempotency_key: between 1 and 200 characters, not 201"),
        ({"max_attempts": 0}, "max_attempts 0: at least 1"),
        ({"timeout": 0}, "timeout 0: seconds, more than 0"),
        ({"available_at": datetime(2030, 1, 1)}, "a datetime with a time zone"),
        ({"metadata": {"when": datetime.now(UTC)}}, "must be JSON"),
        ({"input": "a\x00b"}, "NUL character"),
        ({"input": "half \ud800"}, "must be JSON in UTF-8"),
        ({"assistant": "nobody"}, "no assistant 'nobody'"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(options: dict[str, Any], told: str) -> None:
    """UsageError in one line, before anything is written."""
    with pytest.raises(UsageError) as raised:
        runs.submit(**{"assistant": "clerk", "input": "hello"} | options)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_unknown_run_is_said() -> None:
    """Every question about it names the id."""
    for question in (runs.handle, runs.cancel, runs.retry):
        with pytest.raises(UnknownRun, match="no run 'run-of-nobody'"):
            question("run-of-nobody")
