"""Runs from Python: submit them, wait for them, cancel them, try them again."""

import asyncio
import math
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from tasks.checks import check_json
from tasks.hooks import hook
from worker.assistants import windows
from worker.broker.wire import DEFAULT_PRIORITY, DEFAULT_QUEUE, QUEUE_PREFIX
from worker.errors import UsageError
from worker.lifecycle import TERMINAL, Status
from worker.producer import Producer, producer
from worker.settings import Settings
from worker.store import assistants, reading, submitting
from worker.store.assistants import Version
from worker.store.reading import RunView
from worker.store.submitting import Accepted, NewRun
from worker.watching.telling import RunEvent

_QUEUE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,98}")
OnBusy = Literal["enqueue", "reject"]
_WINDOWS_A_RUN = 3.0  # a run with tools waits for more than one, and one may be late
_TO_RING = "runwright_to_ring"  # of a session's info: the queues of runs that its commit will make visible


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """One run as a producer asks for it.

    input is text, or a list of content parts as the provider takes them; thread is a key of the producer's own or an id
    of ours, made on first use; a higher priority (0 to 9) goes first among threads; timeout is in seconds from the
    first start. The same idempotency_key gives the same run.

    on_end is a Celery signature, the dict of one, or TASK[@QUEUE]: that task is sent, at least once, when the run has
    ended, with {"id", "thread_id", "batch_id", "status", "error_code"} before its own arguments, unless the signature
    is immutable. Without a queue it goes to Celery's default queue `celery`. on_busy="reject" raises ThreadBusy where
    an earlier run of the thread has not ended.
    """

    assistant: str
    input: str | Sequence[Mapping[str, Any]]
    thread: str | None = None
    queue: str = DEFAULT_QUEUE
    priority: int = DEFAULT_PRIORITY
    idempotency_key: str | None = None
    metadata: Mapping[str, Any] | None = None
    available_at: datetime | None = None
    max_attempts: int | None = None
    timeout: float | None = None
    on_end: Mapping[str, Any] | str | None = None
    on_busy: OnBusy = "enqueue"
    batch_id: str | None = None
    id: str | None = None
    store_result: bool = False


@dataclass(frozen=True, slots=True)
class RunHandle:
    """A run that was accepted; everything else is read from its row."""

    id: str
    thread_id: str

    def status(self) -> Status:
        """Return where the run stands."""
        with producer().database.read() as connection:
            return reading.status(connection, self.id)

    def result(self) -> RunView:
        """Return the run as it is now, with its answer once it has ended."""
        with producer().database.read() as connection:
            return reading.run(connection, self.id)

    def wait(self, timeout: float | None = None) -> RunView:
        """Return the run when it has ended; raises TimeoutError after `timeout` seconds.

        A notice over Redis wakes it, so it looks at the row only now and then; without Redis it looks more often.
        """
        ends_at = math.inf if timeout is None else time.monotonic() + timeout
        with producer().ear(self.id) as ear:
            while (status := self.status()) not in TERMINAL:
                left = ends_at - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"run {self.id} is still {status} after {timeout:g} s")
                ear.wait(left)
        return self.result()

    def events(self, after: str | None = None, timeout: float | None = None) -> Iterator[RunEvent]:
        """Give what happens to the run until it has ended: all of it, or what comes behind the event with this id.

        The last event is its end. Raises TimeoutError after `timeout` seconds, UsageError for what is no event's id.
        """
        return producer().watch(self.id, after).events(timeout)

    async def events_async(self, after: str | None = None) -> AsyncIterator[RunEvent]:
        """Give the same beside a running loop; while it waits, it takes a connection to Redis and no thread."""
        watched = (await asyncio.to_thread(producer)).watch(self.id, after)
        async for told in watched.events_async():
            yield told

    def cancel(self) -> Status:
        """Ask for a cancel; returns the status at once, which is final only where the run was still queued."""
        return cancel(self.id)


def submit(
    *,
    assistant: str,
    input: str | Sequence[Mapping[str, Any]],  # noqa: A002 - the word of the provider's API
    thread: str | None = None,
    queue: str = DEFAULT_QUEUE,
    priority: int = DEFAULT_PRIORITY,
    idempotency_key: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    available_at: datetime | None = None,
    max_attempts: int | None = None,
    timeout: float | None = None,
    on_end: Mapping[str, Any] | str | None = None,
    on_busy: OnBusy = "enqueue",
    session: Session | None = None,
) -> RunHandle:
    """Accept one run; see RunRequest for the keywords.

    With a session on the same database the row joins its transaction and the doorbell rings after its commit.
    Raises UsageError for what cannot be run, KeyReused for a known key with other input, ThreadBusy where on_busy
    says so.
    """
    request = RunRequest(
        assistant=assistant,
        input=input,
        thread=thread,
        queue=queue,
        priority=priority,
        idempotency_key=idempotency_key,
        metadata=metadata,
        available_at=available_at,
        max_attempts=max_attempts,
        timeout=timeout,
        on_end=on_end,
        on_busy=on_busy,
    )
    return submit_many([request], session=session)[0]


def submit_many(requests: Iterable[RunRequest], *, session: Session | None = None) -> list[RunHandle]:
    """Accept many runs in one transaction, all or none; returns their handles in order."""
    door = producer()
    bell = door.doorbell  # where there is no broker, say so before anything is written
    asked = list(requests)
    if session is not None:
        accepted = accept(door, _begun(session), asked)
        _ring_after_commit(session, [run.queue for run in accepted if run.new])
    else:
        with door.database.write() as connection:
            accepted = accept(door, connection, asked)
        bell.ring(run.queue for run in accepted if run.new)
    return [RunHandle(run.id, run.thread_id) for run in accepted]


def _begun(session: Session) -> Connection:
    """Return the session's connection with its transaction begun.

    Python's sqlite3 begins one only with the first write: a savepoint before that would be a transaction of its own.
    """
    connection = session.connection()
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite" and not driver.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    return connection


def _ring_after_commit(session: Session, queues: list[str]) -> None:
    session.info.setdefault(_TO_RING, []).extend(queues)
    if not event.contains(session, "after_commit", _ring_waiting):
        event.listen(session, "after_commit", _ring_waiting)


def _ring_waiting(session: Session) -> None:
    """Ring for what the session has submitted; the release of a savepoint is not yet the commit."""
    if not session.in_nested_transaction():
        _ring_aside(producer(), session.info.pop(_TO_RING, []))


async def submit_async(session: AsyncSession, **request: Any) -> RunHandle:
    """Accept one run in the transaction of an AsyncSession; the keywords are those of submit."""
    return await session.run_sync(lambda sync_session: submit(session=sync_session, **request))


def _ring_aside(door: Producer, queues: Sequence[str]) -> None:
    """Ring; where an AsyncSession commits, not on its event loop, which a lost Redis would hold up."""
    try:
        asyncio.get_running_loop().run_in_executor(None, door.doorbell.ring, queues)
    except RuntimeError:  # no loop runs in this thread
        door.doorbell.ring(queues)


def handle(run_id: str) -> RunHandle:
    """Return the handle of a run that was submitted before; raises UnknownRun."""
    with producer().database.read() as connection:
        view = reading.run(connection, run_id)
    return RunHandle(view.id, view.thread_id)


def cancel(run_id: str) -> Status:
    """Ask for a cancel and return the status now; raises UnknownRun."""
    return producer().cancel(run_id)


def retry(run_id: str, *, start_over: bool = False) -> RunHandle:
    """Reopen an ended run for a further attempt; raises UsageError where it has its result or has not ended.

    One that would ask its model anew after a call that must not run twice is reopened only with `start_over`.
    """
    view = producer().retry(run_id, start_over=start_over)
    return RunHandle(view.id, view.thread_id)


def accept(door: Producer, connection: Connection, requests: Sequence[RunRequest], *known: Version) -> list[Accepted]:
    """Check the requests and insert their rows on this connection; the caller commits and rings.

    Each gets the known version of its assistant, or else the newest.
    """
    versions = {version.name: version for version in known}
    for name in {request.assistant for request in requests} - versions.keys():
        versions[name] = assistants.require(connection, name)
    return submitting.submit(connection, [_new_run(door, versions[r.assistant], r) for r in requests])


def _new_run(door: Producer, version: Version, request: RunRequest) -> NewRun:
    _check(request)
    parts = [{"type": "text", "text": request.input}] if isinstance(request.input, str) else list(request.input)
    config, settings = version.config, door.settings
    _check_time(request, windows.seconds(config))
    return NewRun(
        id=request.id or str(uuid.uuid4()),
        chosen=request.id is not None,
        assistant_id=version.id,
        assistant=version.name,
        input=[dict(part) for part in parts],
        thread_id=request.thread,
        queue=request.queue,
        priority=request.priority,
        idempotency_key=request.idempotency_key,
        metadata=request.metadata or {},
        available_at=request.available_at,
        max_attempts=request.max_attempts or config.get("max_attempts", settings.max_attempts),
        timeout=request.timeout or config.get("timeout") or _usual_timeout(config, settings),
        batch_id=request.batch_id,
        store_result=request.store_result,
        on_end=hook(request.on_end),
        on_busy=request.on_busy,
    )


def _check_time(request: RunRequest, window: float) -> None:
    """Refuse a time limit that has passed before the provider has to have answered."""
    if request.timeout is not None and request.timeout < window:
        told = f"less than the completion_window of assistant {request.assistant!r}, {window:g} s; leave it out"
        raise UsageError(f"timeout: {request.timeout:g} s are {told}, or make it longer")


def _usual_timeout(config: Mapping[str, Any], settings: Settings) -> float:
    """Return the seconds of a run where nobody names any; each of its steps may wait for a whole window."""
    return max(settings.run_timeout, _WINDOWS_A_RUN * windows.seconds(config))


def _check(request: RunRequest) -> None:
    """Refuse what could not be stored or carried, in words that name the argument."""
    if not request.input:
        raise UsageError("input: empty; there is nothing to ask")
    if request.queue.startswith(QUEUE_PREFIX):
        raise UsageError(f"queue {request.queue!r}: without the prefix: {request.queue.removeprefix(QUEUE_PREFIX)!r}")
    if not _QUEUE.fullmatch(request.queue):
        raise UsageError(f"queue {request.queue!r}: lower-case letters, digits, '_', '.' and '-'")
    if not 0 <= request.priority <= 9:
        raise UsageError(f"priority {request.priority}: from 0 to 9, the higher goes first")
    for name, value in (("thread", request.thread), ("idempotency_key", request.idempotency_key), ("id", request.id)):
        if value is not None and not 0 < len(value) <= 200:
            raise UsageError(f"{name}: between 1 and 200 characters, not {len(value)}")
    if request.on_busy not in get_args(OnBusy):
        raise UsageError(f"on_busy {request.on_busy!r}: {' or '.join(get_args(OnBusy))}")
    _check_limits(request)
    check_json([request.input, request.metadata, request.thread, request.idempotency_key], "input and metadata")


def _check_limits(request: RunRequest) -> None:
    if request.max_attempts is not None and request.max_attempts < 1:
        raise UsageError(f"max_attempts {request.max_attempts}: at least 1")
    if request.timeout is not None and request.timeout <= 0:
        raise UsageError(f"timeout {request.timeout}: seconds, more than 0")
    if request.available_at is not None and request.available_at.tzinfo is None:
        raise UsageError("available_at: a datetime with a time zone, such as datetime.now(UTC)")
