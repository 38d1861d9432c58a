"""What stands where, for a person at 3 a.m. and for gauges: counts by the partial indexes, whatever has piled up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, exists, func, not_, select

from worker.conditions import CLAIMABLE, OWNED, UNDECIDED, WAITING
from worker.dbtime import from_now
from worker.lifecycle import TERMINAL, Status
from worker.models import EventRow, Outgoing, Run, ToolCall, Worker
from worker.store import groups, pausing
from worker.store.groups import CapView
from worker.store.pausing import PAUSED

_HOUR = 3600.0
# So many of the newest events are read for the errors of the last hour: some tenths of a second at most.
_EVENTS = 200_000


@dataclass(frozen=True, slots=True)
class Due:
    """The backlog of one queue: runs that a worker could take now, and how long the oldest has been due, in seconds."""

    queue: str
    runs: int
    oldest: float


@dataclass(frozen=True, slots=True)
class QueueView:
    """One queue: each of its runs that has not ended is counted once."""

    queue: str
    due: int
    oldest_due_seconds: float | None
    paused: int
    """Due, and held back by a pause."""
    later: int
    """Queued for a time to come: a retry, or a start that was asked for."""
    parked: int
    """Begun and set down until a due time: the next look, a person's answer, the end of a pause after a fault."""
    waiting: int
    """Behind another run of their thread."""
    in_flight: int
    workers: int
    """How many living workers serve it."""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker; its lease is over, and its runs are about to be others', when lease_seconds is negative."""

    id: str
    node: str
    pid: int
    queues: Sequence[str]
    held: int
    max_in_flight: int
    lease_seconds: float
    started_at: datetime
    http: str | None


@dataclass(frozen=True, slots=True)
class PauseView:
    """What is paused, since when and why."""

    kind: str
    name: str
    reason: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ErrorView:
    """How often an error ended a run, and how often only an attempt at one."""

    code: str
    ended: int
    retried: int
    refused: int
    """Runs whose request was refused with it time and again, and is asked again: none of them has ended by it."""


@dataclass(frozen=True, slots=True)
class Overview:
    """All that `runwright status` shows; questions and outbox are counts by kind."""

    at: datetime
    queues: Sequence[QueueView]
    pauses: Sequence[PauseView]
    caps: Sequence[CapView]
    workers: Sequence[WorkerView]
    questions: Mapping[str, int]
    errors: Sequence[ErrorView]
    errors_since: datetime
    outbox: Mapping[str, int]
    outbox_oldest_seconds: float | None


def overview(connection: Connection) -> Overview:
    """Return everything at once."""
    now: datetime = connection.execute(select(from_now())).scalar_one()
    workers = _workers(connection, now)
    pauses = [PauseView(row.kind, row.name, row.reason, row.created_at) for row in pausing.paused(connection)]
    errors_since, errors = _errors(connection)
    outbox, outbox_oldest = _outbox(connection, now)
    return Overview(
        at=now,
        queues=_queues(connection, workers, pauses=bool(pauses)),
        pauses=pauses,
        caps=groups.caps(connection),
        workers=workers,
        questions=_questions(connection),
        errors=errors,
        errors_since=errors_since,
        outbox=outbox,
        outbox_oldest_seconds=outbox_oldest,
    )


def due(connection: Connection) -> list[Due]:
    """Return the backlog of every queue that has one, without what is paused; by the index alone where nothing is."""
    columns = (Run.queue, func.count(), func.min(Run.due_at), from_now())
    allowed = pausing.unpaused(connection)
    rows = select(*columns).where(CLAIMABLE, Run.due_at <= from_now(), allowed).group_by(Run.queue).order_by(Run.queue)
    return [Due(queue, count, _seconds(now, oldest or now)) for queue, count, oldest, now in connection.execute(rows)]


def _queues(connection: Connection, workers: Sequence[WorkerView], *, pauses: bool) -> list[QueueView]:
    backlog = {one.queue: one for one in due(connection)}
    queued, ahead = Run.status == Status.QUEUED.value, Run.due_at > from_now()
    waiting = _by_queue(connection, WAITING)
    held = _by_queue(connection, OWNED)
    later = _by_queue(connection, CLAIMABLE, ahead, queued)
    parked = _by_queue(connection, CLAIMABLE, ahead, not_(queued))
    paused = _by_queue(connection, CLAIMABLE, Run.due_at <= from_now(), PAUSED) if pauses else {}
    served = [queue for worker in workers if worker.lease_seconds > 0 for queue in worker.queues]
    names = sorted({*backlog, *waiting, *held, *later, *parked, *paused, *served})
    return [
        QueueView(
            queue=name,
            due=backlog[name].runs if name in backlog else 0,
            oldest_due_seconds=backlog[name].oldest if name in backlog else None,
            paused=paused.get(name, 0),
            later=later.get(name, 0),
            parked=parked.get(name, 0),
            waiting=waiting.get(name, 0),
            in_flight=held.get(name, 0),
            workers=served.count(name),
        )
        for name in names
    ]


def _by_queue(connection: Connection, *which: Any) -> dict[str, int]:
    return _counts(connection, select(Run.queue, func.count()).where(*which).group_by(Run.queue))


def _counts(connection: Connection, statement: Any) -> dict[str, int]:
    return {str(name): count for name, count in connection.execute(statement)}


def _workers(connection: Connection, now: datetime) -> list[WorkerView]:
    held = _counts(connection, select(Run.owner, func.count()).where(OWNED).group_by(Run.owner))
    workers = connection.execute(select(Worker).order_by(Worker.node, Worker.started_at))
    return [
        WorkerView(
            id=row.id,
            node=row.node,
            pid=row.pid,
            queues=row.queues,
            held=held.get(row.id, 0),
            max_in_flight=row.max_in_flight,
            lease_seconds=_seconds(row.lease_until, now),
            started_at=row.started_at,
            http=row.http,
        )
        for row in workers
    ]


def _questions(connection: Connection) -> dict[str, int]:
    ended = [status.value for status in TERMINAL]
    # Correlated: joined, SQLite would begin with the runs.
    lives = exists().where(Run.id == ToolCall.run_id, Run.status.not_in(ended))
    undecided = select(ToolCall.question, func.count()).where(UNDECIDED, lives)
    return _counts(connection, undecided.group_by(ToolCall.question).order_by(ToolCall.question))


def _errors(connection: Connection) -> tuple[datetime, list[ErrorView]]:
    """Return since when errors are counted, an hour at most, and the errors, the most frequent first.

    Runs have no index by their end, and need none for this alone: the newest events, by their number, tell the same.
    """
    first_id = (connection.execute(select(func.max(EventRow.id))).scalar_one() or 0) - _EVENTS
    first = select(EventRow.at).where(EventRow.id > first_id).order_by(EventRow.id).limit(1)
    hour, read_from = connection.execute(select(from_now(-_HOUR), first.scalar_subquery())).one()
    code = EventRow.data["code"].as_string()
    retried, refused = (func.sum(case((EventRow.name == name, 1), else_=0)) for name in ("retried", "refused"))
    total = func.count()
    counted = select(code, total - retried - refused, retried, refused)
    counted = counted.where(EventRow.id > first_id, EventRow.at > hour)
    rows = connection.execute(counted.where(code.is_not(None)).group_by(code).order_by(total.desc(), code))
    return max(hour, read_from) if first_id > 0 else hour, [ErrorView(*row) for row in rows]


def _outbox(connection: Connection, now: datetime) -> tuple[dict[str, int], float | None]:
    columns = (Outgoing.kind, func.count(), func.min(Outgoing.created_at))
    rows = connection.execute(select(*columns).group_by(Outgoing.kind).order_by(Outgoing.kind)).all()
    oldest = max((_seconds(now, first) for _, _, first in rows), default=None)
    return {kind: count for kind, count, _ in rows}, oldest


def _seconds(later: datetime, earlier: datetime) -> float:
    return round((later - earlier).total_seconds(), 3)
