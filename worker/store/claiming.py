"""A worker takes due runs: those that go on, then the most urgent, then the oldest; never without a living lease."""

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, bindparam, case, func, literal, select, union_all, update

from worker.conditions import CLAIMABLE, GOES_ON
from worker.dbtime import from_now
from worker.lifecycle import Event, Status, after
from worker.models import Assistant, Attempt, Conversation, Run, Thread
from worker.store import budgets, groups, leases, many, sharing
from worker.store.database import one_trip
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
    """Emptied as soon as the provider has it: it may be a whole document, and thousands of runs wait."""
    metadata: dict[str, Any]
    store_result: bool
    on_end: dict[str, Any] | None
    batch_id: str | None
    priority: int
    assistant: str
    config: dict[str, Any]
    conversation: str | None
    place: str | None
    """Where that conversation is."""
    last_item: str | None
    provider_id: str | None
    previous: str | None
    """The newest step of this attempt that the provider has taken on."""
    intent_step: int | None
    intent_after: str | None
    step_age: float
    """Seconds since the step in hand was begun at the provider; 0.0 where it was not."""
    seen: float | None
    """Its age when it was last looked at, where the run was parked until the next look; else None."""
    created: int
    """Steps of this attempt that the provider has taken on."""
    reissued: int
    """Steps of this attempt that workers before have asked for again."""
    timeout: float
    seconds_left: float
    stood: float
    """Seconds that its time stood still since its deadline was written: nothing of its attempt had begun."""
    cancelling: bool

    @property
    def stays_at(self) -> str | None:
        """Return the place that an attempt ends at since it began there, None for one that has not begun.

        The settings may name another one meanwhile: ids of this one mean nothing there, and what goes on is paid for.
        """
        return self.place if self.created or self.intent_step is not None else None


_THESE = Run.id.in_(bindparam("ids", expanding=True))


def _probe(queue: str, priority: int) -> Any:
    """Look up the oldest due run of one pair: one step into the index, however long the backlog."""
    due = select(Run.due_at).where(CLAIMABLE, Run.queue == queue, Run.priority == priority, Run.due_at <= from_now())
    oldest = due.order_by(Run.due_at).limit(1).scalar_subquery()
    return select(literal(queue).label("queue"), literal(priority).label("priority"), oldest.label("oldest"))


@cache
def _probes(queues: tuple[str, ...]) -> list[Any]:
    parts = [queues[start : start + _PROBED_QUEUES] for start in range(0, len(queues), _PROBED_QUEUES)]
    return [union_all(*(_probe(queue, priority) for queue in part for priority in PRIORITIES)) for part in parts]


def _taking(due: Any) -> Any:
    # Materialised: a planner that runs the sub-select once for each outer row would take more than the limit.
    picked = due.with_for_update(skip_locked=True).cte("picked").prefix_with("MATERIALIZED")
    begins = Run.status == Status.QUEUED.value
    return (
        update(Run)
        .where(Run.id.in_(select(picked.c.id)))
        .values(
            owner=bindparam("worker"),
            fence=Run.fence + 1,
            due_at=None,
            status=case((begins, after(Status.QUEUED, Event.CLAIM).value), else_=Run.status),
            attempt=Run.attempt + case((begins, 1), else_=0),
            started_at=func.coalesce(Run.started_at, from_now()),
            deadline_at=func.coalesce(Run.deadline_at, from_now(func.coalesce(Run.seconds_left, Run.timeout))),
        )
        .returning(Run.id)
    )


def _loading() -> Any:
    attempt = (Attempt.run_id == Run.id) & (Attempt.number == Run.attempt)
    return (
        select(
            Run,
            Thread.provider_id.label("conversation"),
            Conversation.place,
            Thread.last_item,
            Attempt.provider_id,
            Attempt.intent_step,
            Attempt.intent_at,
            Attempt.intent_after,
            Attempt.looked_at,
            Attempt.provider_ids,
            Attempt.adopted,
            Attempt.reissued,
            from_now().label("now"),
        )
        .join(Thread, Thread.id == Run.thread_id)
        .outerjoin(Conversation, Conversation.id == Thread.provider_id)
        .outerjoin(Attempt, attempt)
        .where(_THESE)
    )


# Built once: making them anew at each claim costs more than the database takes to execute them.
_DUE = (
    select(Run.id)
    .where(Run.queue == bindparam("of_queue"), Run.priority == bindparam("of_priority"), Run.due_at <= from_now())
    .order_by(Run.due_at)
    .limit(bindparam("room"))
)
# First what goes on, whatever its priority: its time runs and what it waits for has been paid for. Urgency says who
# begins: a backlog of what is more urgent may take hours, and a parked run is looked at or cancelled by a claim alone.
_TAKES = (_taking(_DUE.where(GOES_ON)), _taking(_DUE.where(CLAIMABLE)))
_TAKE_THESE = _taking(select(Run.id).where(CLAIMABLE, _THESE))
_LOAD = _loading()
_NEXT_QUEUE = select(func.min(Run.queue)).where(CLAIMABLE, Run.queue > bindparam("last"))
_VERSIONS = select(Assistant).where(Assistant.id.in_(bindparam("ids", expanding=True)))


def claim(connection: Connection, worker: str, queues: Sequence[str], limit: int) -> list[Claim]:
    """Take up to `limit` due runs of these queues; raises LostClaim when the worker's own lease has run out."""
    budgets.count(connection)
    if back := groups.held_back(connection):
        leases.hold(connection, worker)
        due = groups.due(connection, queues, limit, back, lock=True)
        taken = _take_these(connection, worker, due)
    elif levels := _due_levels(connection, queues):
        leases.hold(connection, worker)
        taken = _take_levels(connection, worker, levels, limit)
    else:
        return []
    claims = _load(connection, taken)
    _open_attempts(connection, claims)
    return claims


def _due_levels(connection: Connection, queues: Sequence[str]) -> list[tuple[str, int]]:
    """Return the (queue, priority) pairs that have a due run, most urgent first, then the one that waits longest."""
    found = [row for probes in _probes(tuple(queues)) for row in connection.execute(probes)]
    levels = [row for row in found if row.oldest is not None]
    return [(row.queue, row.priority) for row in sorted(levels, key=lambda row: (-row.priority, row.oldest))]


def _take_levels(connection: Connection, worker: str, levels: Sequence[tuple[str, int]], limit: int) -> list[str]:
    taken: list[str] = []
    for take, (queue, priority) in itertools.product(_TAKES, levels):
        if len(taken) < limit:
            where = {"of_queue": queue, "of_priority": priority, "room": limit - len(taken)}
            taken += connection.execute(take, {"worker": worker, **where}).scalars()
    return taken


def _take_these(connection: Connection, worker: str, run_ids: Sequence[str]) -> list[str]:
    """Take these runs, as far as nobody else just has; returns their ids in the given order."""
    taken = connection.execute(_TAKE_THESE, {"worker": worker, "ids": run_ids}).scalars() if run_ids else ()
    return sorted(taken, key=run_ids.index)


def _load(connection: Connection, ids: Sequence[str]) -> list[Claim]:
    if not ids:
        return []
    rows = {row.id: row for row in connection.execute(_LOAD, {"ids": ids})}
    versions = {"ids": list({row.assistant_id for row in rows.values()})}
    assistants = {row.id: row for row in connection.execute(_VERSIONS, versions)}
    return [_claim_of(rows[run_id], assistants[rows[run_id].assistant_id]) for run_id in ids]


def _claim_of(row: Any, assistant: Any) -> Claim:
    now: datetime = row.now
    created = len(row.provider_ids or ()) + (row.adopted or 0)
    left = whole = (row.deadline_at - now).total_seconds()
    if not created and row.intent_step is None:  # whoever had it could only wait for a place
        whole = row.timeout if row.seconds_left is None else row.seconds_left
    return Claim(
        run_id=row.id,
        thread_id=row.thread_id,
        seq=row.seq,
        worker=sys.intern(row.owner),  # thousands of them are of one worker, and of one batch
        fence=row.fence,
        status=Status(row.status),
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        step=row.step,
        input=row.input,
        metadata=row.metadata,
        store_result=row.store_result,
        on_end=row.on_end,
        batch_id=row.batch_id and sys.intern(row.batch_id),
        priority=row.priority,
        assistant=assistant.name,
        config=assistant.config,
        conversation=row.conversation,
        place=row.place,
        last_item=row.last_item,
        provider_id=row.provider_id,
        previous=row.provider_ids[-1] if row.provider_ids else None,
        intent_step=row.intent_step,
        intent_after=row.intent_after,
        step_age=max(0.0, (now - row.intent_at).total_seconds()) if row.intent_at else 0.0,
        seen=_seen(row),
        created=created,
        reissued=row.reissued or 0,
        timeout=row.timeout,
        seconds_left=whole,
        stood=whole - left,
        cancelling=row.cancel_requested_at is not None,
    )


def _seen(row: Any) -> float | None:
    if row.looked_at is None or row.provider_id is None or row.looked_at < row.intent_at:
        return None
    return float((row.looked_at - row.intent_at).total_seconds())


def _open_attempts(connection: Connection, claims: Sequence[Claim]) -> None:
    """Begin an attempt for each run that came from the queue; one that was let go goes on with its own.

    A claim for the next look is no news: a run that waits for hours would fill its journal with them.
    """
    if not claims:
        return
    attempts = [{"run_id": c.run_id, "number": c.attempt, "worker": c.worker, "provider_ids": []} for c in claims]
    told = [(c.run_id, c.attempt, {"fence": c.fence}) for c in claims if c.seen is None]
    with one_trip(connection):
        many.insert(connection, Attempt, attempts, ignore=True)
        record_many(connection, "claimed", told, claims[0].worker)


def still_due(connection: Connection, queues: Sequence[str]) -> bool:
    """Tell whether runs are due in these queues that may begin or go on."""
    if back := groups.held_back(connection):
        return bool(groups.due(connection, queues, 1, back, lock=False))
    return bool(_due_levels(connection, queues))


def share(connection: Connection, worker: str, queues: Sequence[str], held: int, limit: int) -> int | None:
    """Return how many due runs a worker that holds so many should claim now; None where none is due."""
    return sharing.part(connection, worker, queues, held, limit) if still_due(connection, queues) else None


def due_queues(connection: Connection) -> list[str]:
    """Return every queue that has a due run which may begin or go on: some steps into indexes for each queue."""
    found: list[str] = []
    last: str | None = ""
    while (last := connection.execute(_NEXT_QUEUE, {"last": last}).scalar_one()) is not None:
        if still_due(connection, [last]):
            found.append(last)
    return found
