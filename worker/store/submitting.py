"""A run's row enters: numbered in its thread, with the turn if it is free, once for each idempotency key."""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, case, func, insert, literal, or_, select
from sqlalchemy.exc import IntegrityError

from worker.broker.wire import DEFAULT_PRIORITY, DEFAULT_QUEUE
from worker.dbtime import from_now
from worker.errors import KeyReused, ThreadBusy
from worker.lifecycle import Status
from worker.models import Run, Thread
from worker.store import locks, many
from worker.store.database import one_trip
from worker.store.journal import record_many

_RUNS: Any = Run.__table__
_NAMES = (
    "id thread_id seq assistant_id batch_id queue priority input idempotency_key input_hash metadata store_result"
    " on_end turn max_attempts timeout"
)
_GIVEN = [_RUNS.c[name] for name in _NAMES.split()]


def _inserting(dialect: str) -> Any:
    """Insert what _row gives; a run that is not for later is available now, and due if it has the turn."""
    given = many.table(dialect, *_GIVEN, _RUNS.c.available_at).c
    available = func.coalesce(given.available_at, from_now())
    said = {"status": literal(Status.QUEUED.value), "available_at": available, "due_at": case((given.turn, available))}
    rows = select(*(given[column.name] for column in _GIVEN), *said.values())
    return insert(_RUNS).from_select([*(column.name for column in _GIVEN), *said], rows)


_INSERT = many.built(_inserting)
_FEW = 100
_SAME = select(Run.id, Run.thread_id, Run.status, Run.queue, Run.idempotency_key, Run.input_hash).where(
    or_(Run.id.in_(bindparam("ids", expanding=True)), Run.idempotency_key.in_(bindparam("keys", expanding=True)))
)


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
    queue: str = DEFAULT_QUEUE
    priority: int = DEFAULT_PRIORITY
    idempotency_key: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    available_at: datetime | None = None
    batch_id: str | None = None
    store_result: bool = False
    on_end: Mapping[str, Any] | None = None
    on_busy: str = "enqueue"
    chosen: bool = True
    """Whether its id is the producer's choice: then the run may be there already."""

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
    if not any(map(_may_fail, runs)):
        return _submit(connection, runs)
    try:
        return _safely(connection, runs)
    except (IntegrityError, ThreadBusy):
        # Another producer committed the same key or id between our look and our insert: now it can be seen.
        return _safely(connection, runs)


def _may_fail(run: NewRun) -> bool:
    """Tell whether what the producer chose can be refused: then the caller's transaction needs a savepoint."""
    return bool(run.chosen or run.idempotency_key or run.batch_id or run.on_busy == "reject")


def _safely(connection: Connection, runs: Sequence[NewRun]) -> list[Accepted]:
    with connection.begin_nested():
        return _submit(connection, runs)


def _submit(connection: Connection, runs: Sequence[NewRun]) -> list[Accepted]:
    known = _known(connection, runs)
    fresh = _fresh(runs, known)
    added = _add(connection, fresh)
    return [_accepted(run, known, added) for run in runs]


def _name(run: NewRun) -> str:
    """Return what makes two submits the same run: the key where there is one, else the id."""
    return f"key:{run.idempotency_key}" if run.idempotency_key else f"id:{run.id}"


def _known(connection: Connection, runs: Sequence[NewRun]) -> dict[str, Any]:
    """Return the rows that are there already, by idempotency key and by id."""
    rows: dict[str, Any] = {}
    for part in many.chunks([run for run in runs if run.chosen or run.idempotency_key]):
        asked = {"ids": [run.id for run in part], "keys": [run.idempotency_key for run in part if run.idempotency_key]}
        found = connection.execute(_SAME, asked).all()
        rows |= {f"id:{row.id}": row for row in found}
        rows |= {f"key:{row.idempotency_key}": row for row in found if row.idempotency_key}
    return rows


def _match(run: NewRun, rows: Mapping[str, Any]) -> Any:
    return rows.get(_name(run)) or rows.get(f"id:{run.id}")


def _fresh(runs: Iterable[NewRun], known: Mapping[str, Any]) -> list[NewRun]:
    """Drop what is known and what the same call holds twice; raises KeyReused on other input."""
    fresh: dict[str, NewRun] = {}
    for run in runs:
        row = _match(run, known) if known else None
        twin = fresh.setdefault(_name(run), run) if row is None else run
        if (row is not None or twin is not run) and run.digest != (row.input_hash if row else twin.digest):
            key = run.idempotency_key or run.id
            raise KeyReused(f"the idempotency key {key!r} belongs to a run with other input; use a new key")
    return list(fresh.values())


def _add(connection: Connection, runs: Sequence[NewRun]) -> dict[str, Accepted]:
    """Insert the runs, each at its place; what was given no thread gets one of its own."""
    own, named = _own(runs), _named(connection, runs)
    rows = [*own, *named]
    # In bulk the rows take longer than their round trips, and perhaps longer than a trip may.
    with one_trip(connection) if len(rows) <= _FEW else nullcontext():
        many.insert(connection, Thread, [{"id": row["thread_id"], "next_seq": 1} for row in own])
        many.execute(connection, _INSERT, rows)
        record_many(connection, "submitted", [(row["id"], 0, {}) for row in rows])
    threads = {row["id"]: row["thread_id"] for row in rows}
    return {_name(run): Accepted(run.id, threads[run.id], Status.QUEUED.value, run.queue, new=True) for run in runs}


def _own(runs: Sequence[NewRun]) -> list[dict[str, Any]]:
    return [_row(run, f"thread_{uuid.uuid4().hex}", 1, turn=True) for run in runs if not run.thread_id]


def _named(connection: Connection, runs: Sequence[NewRun]) -> list[dict[str, Any]]:
    lines: dict[str, list[NewRun]] = {}
    for run in runs:
        if run.thread_id:
            lines.setdefault(run.thread_id, []).append(run)
    last = locks.take_numbers(connection, {thread_id: len(line) for thread_id, line in lines.items()})
    # A thread whose numbers begin with ours has had no run that could have its turn.
    busy = locks.busy(connection, [thread_id for thread_id, line in lines.items() if last[thread_id] > len(line)])
    rows: list[dict[str, Any]] = []
    for thread_id, line in lines.items():
        first, free = last[thread_id] - len(line) + 1, thread_id not in busy
        _refuse_busy(connection, line, thread_id, free=free)
        rows += [_row(run, thread_id, first + at, turn=free and at == 0) for at, run in enumerate(line)]
    return rows


def _refuse_busy(connection: Connection, line: Sequence[NewRun], thread_id: str, *, free: bool) -> None:
    """Raise ThreadBusy for a run that does not want to wait: the thread is busy, or one of the same call goes first."""
    if any(run.on_busy == "reject" and (place or not free) for place, run in enumerate(line)):
        turn = select(Run.id).where(Run.thread_id == thread_id, Run.turn)
        first = line[0].id if free else connection.execute(turn).scalar_one()
        raise ThreadBusy(f"thread {thread_id!r} is busy: run {first} has not ended")


def _row(run: NewRun, thread_id: str, seq: int, *, turn: bool) -> dict[str, Any]:
    return {
        "id": run.id,
        "thread_id": thread_id,
        "seq": seq,
        "assistant_id": run.assistant_id,
        "batch_id": run.batch_id,
        "queue": run.queue,
        "priority": run.priority,
        "input": run.input,
        "idempotency_key": run.idempotency_key,
        "input_hash": run.digest,
        "metadata": dict(run.metadata),
        "store_result": run.store_result,
        "on_end": dict(run.on_end) if run.on_end else None,
        "turn": turn,
        "available_at": run.available_at,
        "max_attempts": run.max_attempts,
        "timeout": run.timeout,
    }


def _accepted(run: NewRun, known: Mapping[str, Any], added: Mapping[str, Accepted]) -> Accepted:
    row = _match(run, known)
    if row is not None:
        return Accepted(row.id, row.thread_id, row.status, row.queue, new=False)
    return added[_name(run)]
