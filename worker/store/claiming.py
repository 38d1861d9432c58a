"""A worker takes due runs: most urgent first, then oldest, never one row twice, never without a living lease."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, func, literal, select, union_all, update
from sqlalchemy.dialects import postgresql, sqlite

from worker.dbtime import from_now
from worker.lifecycle import Event, Status, after
from worker.models import CLAIMABLE, Assistant, Attempt, Run, Thread
from worker.store import leases, pausing
from worker.store.journal import record_many

PRIORITIES = range(9, -1, -1)
# SQLite takes 500 terms in a UNION: ten priorities each.
_PROBED_QUEUES = 40


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that this worker holds, with all that driving it needs; every write shows worker and fence."""

    run_id: str
    thread_id: str
    seq: int
    worker: str
    fence: int
    status: Status
    attempt: int
    max_attempts: int
    step: int
    input: list[Any]
    metadata: dict[str, Any]
    store_result: bool
    on_end: dict[str, Any] | None
    batch_id: str | None
    priority: int
    assistant: str
    config: dict[str, Any]
    conversation: str | None
    last_item: str | None
    provider_id: str | None
    intent_step: int | None
    intent_after: str | None
    step_age: float
    """Seconds since the step in hand was begun at the provider; 0.0 where it was not."""
    created: int
    """Steps of this attempt that the provider has taken on."""
    timeout: float
    seconds_left: float
    cancelling: bool


def claim(connection: Connection, worker: str, queues: Sequence[str], limit: int) -> list[Claim]:
    """Take up to `limit` due runs of these queues; raises LostClaim when the worker's own lease has run out."""
    allowed = pausing.unpaused(connection)
    levels = _due_levels(connection, queues, allowed)
    if not levels:
        return []
    leases.hold(connection, worker)
    taken: list[str] = []
    for queue, priority in levels:
        room = limit - len(taken)
        if room <= 0:
            break
        taken += connection.execute(_take(worker, queue, priority, room, allowed)).scalars()
    claims = _load(connection, taken)
    _open_attempts(connection, claims)
    return claims


def _due_levels(connection: Connection, queues: Sequence[str], allowed: ColumnElement[bool]) -> list[tuple[str, int]]:
    """Return the (queue, priority) pairs that have a due run, most urgent first, then the one that waits longest."""
    levels: list[Any] = []
    for start in range(0, len(queues), _PROBED_QUEUES):
        part = queues[start : start + _PROBED_QUEUES]
        probes = [_probe(queue, priority, allowed) for queue in part for priority in PRIORITIES]
        levels += [row for row in connection.execute(union_all(*probes)) if row.oldest is not None]
    return [(row.queue, row.priority) for row in sorted(levels, key=lambda row: (-row.priority, row.oldest))]


def _probe(queue: str, priority: int, allowed: ColumnElement[bool]) -> Any:
    """Look up the oldest due run of one pair: one step into the index, however long the backlog."""
    due = select(Run.due_at).where(*_due(queue, priority), allowed)
    oldest = due.order_by(Run.due_at).limit(1).scalar_subquery()
    return select(literal(queue).label("queue"), literal(priority).label("priority"), oldest.label("oldest"))


def _due(queue: str, priority: int) -> tuple[Any, ...]:
    return CLAIMABLE, Run.queue == queue, Run.priority == priority, Run.due_at <= from_now()


def _take(worker: str, queue: str, priority: int, limit: int, allowed: ColumnElement[bool]) -> Any:
    due = (
        select(Run.id)
        .where(*_due(queue, priority), allowed)
        .order_by(Run.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    # Materialised: a planner that runs the sub-select once for each outer row would take more than the limit.
    picked = due.cte("picked").prefix_with("MATERIALIZED")
    begins = Run.status == Status.QUEUED.value
    return (
        update(Run)
        .where(Run.id.in_(select(picked.c.id)))
        .values(
            owner=worker,
            fence=Run.fence + 1,
            due_at=None,
            status=case((begins, after(Status.QUEUED, Event.CLAIM).value), else_=Run.status),
            attempt=Run.attempt + case((begins, 1), else_=0),
            started_at=func.coalesce(Run.started_at, from_now()),
            deadline_at=func.coalesce(Run.deadline_at, from_now(func.coalesce(Run.seconds_left, Run.timeout))),
            seconds_left=None,
        )
        .returning(Run.id)
    )


def _load(connection: Connection, ids: Sequence[str]) -> list[Claim]:
    if not ids:
        return []
    rows = {row.id: row for row in connection.execute(_loading(ids))}
    return [_claim_of(rows[run_id]) for run_id in ids]


def _loading(ids: Sequence[str]) -> Select[Any]:
    attempt = (Attempt.run_id == Run.id) & (Attempt.number == Run.attempt)
    return (
        select(
            Run,
            Assistant.name.label("assistant"),
            Assistant.config,
            Thread.provider_id.label("conversation"),
            Thread.last_item,
            Attempt.provider_id,
            Attempt.intent_step,
            Attempt.intent_at,
            Attempt.intent_after,
            Attempt.provider_ids,
            Attempt.adopted,
            from_now().label("now"),
        )
        .join(Assistant, Assistant.id == Run.assistant_id)
        .join(Thread, Thread.id == Run.thread_id)
        .outerjoin(Attempt, attempt)
        .where(Run.id.in_(ids))
    )


def _claim_of(row: Any) -> Claim:
    now: datetime = row.now
    return Claim(
        run_id=row.id,
        thread_id=row.thread_id,
        seq=row.seq,
        worker=row.owner,
        fence=row.fence,
        status=Status(row.status),
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        step=row.step,
        input=row.input,
        metadata=row.metadata,
        store_result=row.store_result,
        on_end=row.on_end,
        batch_id=row.batch_id,
        priority=row.priority,
        assistant=row.assistant,
        config=row.config,
        conversation=row.conversation,
        last_item=row.last_item,
        provider_id=row.provider_id,
        intent_step=row.intent_step,
        intent_after=row.intent_after,
        step_age=(now - row.intent_at).total_seconds() if row.intent_at else 0.0,
        created=len(row.provider_ids or ()) + (row.adopted or 0),
        timeout=row.timeout,
        seconds_left=(row.deadline_at - now).total_seconds(),
        cancelling=row.cancel_requested_at is not None,
    )


def _open_attempts(connection: Connection, claims: Sequence[Claim]) -> None:
    """Begin an attempt for each run that came from the queue; one that was handed over goes on with its own."""
    if not claims:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    attempts = [
        {"run_id": claim.run_id, "number": claim.attempt, "worker": claim.worker, "provider_ids": []}
        for claim in claims
    ]
    connection.execute(dialect.insert(Attempt).on_conflict_do_nothing(), attempts)
    record_many(connection, "claimed", [(c.run_id, c.attempt, {"fence": c.fence}) for c in claims], claims[0].worker)


def still_due(connection: Connection, queues: Sequence[str]) -> bool:
    """Tell whether due runs remain in these queues."""
    return bool(_due_levels(connection, queues, pausing.unpaused(connection)))


def due_queues(connection: Connection) -> list[str]:
    """Return every queue that has a due run which may begin or go on."""
    due = select(Run.queue).where(CLAIMABLE, Run.due_at <= from_now(), pausing.unpaused(connection)).distinct()
    return sorted(connection.execute(due).scalars())
