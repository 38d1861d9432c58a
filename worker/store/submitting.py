"""A run's row enters: numbered in its thread, with the turn if it is free, once for each idempotency key."""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, insert, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from worker import locks
from worker.dbtime import from_now
from worker.errors import KeyReused, ThreadBusy
from worker.lifecycle import Status
from worker.models import Run, Thread
from worker.store.journal import record_many

# SQLite takes 32,766 bound values in a statement and PostgreSQL 65,535: look-ups stay far below.
_CHUNK = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run as asked for: checked, with its assistant's version chosen."""

    assistant_id: str
    assistant: str
    input: list[Any]
    max_attempts: int
    timeout: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    thread_id: str | None = None
    queue: str = "default"
    priority: int = 5
    idempotency_key: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    available_at: datetime | None = None
    batch_id: str | None = None
    store_result: bool = False
    on_end: Mapping[str, Any] | None = None
    on_busy: str = "enqueue"

    @property
    def digest(self) -> str:
        """Identify what was asked: the same key with another digest is an error."""
        asked = [self.assistant, self.input, self.thread_id]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Accepted:
    """A run that is in the table: new, or the one that the key or the id had already made."""

    id: str
    thread_id: str
    status: str
    queue: str
    new: bool


def submit(connection: Connection, runs: Sequence[NewRun]) -> list[Accepted]:
    """Insert the runs and return one Accepted for each, in their order; raises KeyReused and ThreadBusy."""
    try:
        return _submit(connection, runs)
    except (IntegrityError, ThreadBusy):
        # Another producer committed the same key or id between our look and our insert: now it can be seen.
        return _submit(connection, runs)


def _submit(connection: Connection, runs: Sequence[NewRun]) -> list[Accepted]:
    known = _known(connection, runs)
    fresh = _fresh(runs, known)
    with connection.begin_nested():
        added = _add(connection, fresh)
    return [_accepted(run, known, added) for run in runs]


def _name(run: NewRun) -> str:
    """Return what makes two submits the same run: the key where there is one, else the id."""
    return f"key:{run.idempotency_key}" if run.idempotency_key else f"id:{run.id}"


def _known(connection: Connection, runs: Sequence[NewRun]) -> dict[str, Any]:
    """Return the rows that are there already, by idempotency key and by id."""
    rows: dict[str, Any] = {}
    columns = (Run.id, Run.thread_id, Run.status, Run.queue, Run.idempotency_key, Run.input_hash)
    for start in range(0, len(runs), _CHUNK):
        part = runs[start : start + _CHUNK]
        keys = [run.idempotency_key for run in part if run.idempotency_key]
        same = or_(Run.id.in_([run.id for run in part]), Run.idempotency_key.in_(keys))
        for row in connection.execute(select(*columns).where(same)):
            rows[f"id:{row.id}"] = row
            if row.idempotency_key:
                rows[f"key:{row.idempotency_key}"] = row
    return rows


def _match(run: NewRun, rows: Mapping[str, Any]) -> Any:
    return rows.get(_name(run)) or rows.get(f"id:{run.id}")


def _fresh(runs: Iterable[NewRun], known: Mapping[str, Any]) -> list[NewRun]:
    """Drop what is known and what the same call holds twice; raises KeyReused on other input."""
    fresh: dict[str, NewRun] = {}
    for run in runs:
        row = _match(run, known)
        name = _name(run)
        twin = fresh.get(name)
        digest = row.input_hash if row else twin.digest if twin else run.digest
        if digest != run.digest:
            key = run.idempotency_key or run.id
            raise KeyReused(f"the idempotency key {key!r} belongs to a run with other input; use a new key")
        if row is None:
            fresh.setdefault(name, run)
    return list(fresh.values())


def _add(connection: Connection, runs: Sequence[NewRun]) -> dict[str, Accepted]:
    """Insert in thread order, so that two bulk submits lock the threads in the same order."""
    now = connection.execute(select(from_now())).scalar_one()
    rows: list[dict[str, Any]] = []
    own, named = [run for run in runs if not run.thread_id], [run for run in runs if run.thread_id]
    threads = [{"id": f"thread_{uuid.uuid4().hex}", "next_seq": 1} for _ in own]
    if threads:
        connection.execute(insert(Thread), threads)
    for run, thread in zip(own, threads, strict=True):
        rows.append(_row(run, str(thread["id"]), 1, turn=True, now=now))
    for thread_id, group in groupby(sorted(named, key=attrgetter("thread_id")), key=attrgetter("thread_id")):
        line = list(group)
        _ensure_thread(connection, thread_id)
        first = locks.take_numbers(connection, thread_id, len(line))
        free = locks.is_free(connection, thread_id)
        _refuse_busy(connection, line, thread_id, free=free)
        for place, run in enumerate(line):
            rows.append(_row(run, thread_id, first + place, turn=free and place == 0, now=now))
    if rows:
        connection.execute(insert(Run), rows)
        record_many(connection, "submitted", [(row["id"], 0, {}) for row in rows])
    names = {row["id"]: row for row in rows}
    return {
        _name(run): Accepted(run.id, names[run.id]["thread_id"], Status.QUEUED.value, run.queue, new=True)
        for run in runs
    }


def _refuse_busy(connection: Connection, line: Sequence[NewRun], thread_id: str, *, free: bool) -> None:
    """Raise ThreadBusy for a run that does not want to wait: the thread is busy, or one of the same call goes first."""
    if any(run.on_busy == "reject" and (place or not free) for place, run in enumerate(line)):
        turn = select(Run.id).where(Run.thread_id == thread_id, Run.turn)
        first = line[0].id if free else connection.execute(turn).scalar_one()
        raise ThreadBusy(f"thread {thread_id!r} is busy: run {first} has not ended")


def _ensure_thread(connection: Connection, thread_id: str) -> None:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(dialect.insert(Thread).values(id=thread_id, next_seq=0).on_conflict_do_nothing())


def _row(run: NewRun, thread_id: str, seq: int, *, turn: bool, now: datetime) -> dict[str, Any]:
    available = run.available_at or now
    return {
        "id": run.id,
        "thread_id": thread_id,
        "seq": seq,
        "assistant_id": run.assistant_id,
        "batch_id": run.batch_id,
        "queue": run.queue,
        "priority": run.priority,
        "status": Status.QUEUED.value,
        "input": run.input,
        "idempotency_key": run.idempotency_key,
        "input_hash": run.digest,
        "metadata": dict(run.metadata),
        "store_result": run.store_result,
        "on_end": dict(run.on_end) if run.on_end else None,
        "turn": turn,
        "due_at": available if turn else None,
        "available_at": available,
        "max_attempts": run.max_attempts,
        "timeout": run.timeout,
    }


def _accepted(run: NewRun, known: Mapping[str, Any], added: Mapping[str, Accepted]) -> Accepted:
    row = _match(run, known)
    if row is not None:
        return Accepted(row.id, row.thread_id, row.status, row.queue, new=False)
    return added[_name(run)]
