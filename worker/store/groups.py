"""What may begin where something is held back: by groups, so that a backlog that waits is one step and not a million.

A group is what pauses, budgets and caps can tell apart: one assistant's version and one batch, in a queue, of one
priority. How many there are does not depend on how many runs wait in them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, text

from worker.conditions import BEGINS, GOES_ON, IN_PROGRESS
from worker.dbtime import UtcDateTime, from_now
from worker.lifecycle import Status
from worker.models import Assistant, Cap, Pause, Run
from worker.store.pausing import BUDGET, Kind

_MOST = 100
"""Groups of which runs are taken in one claim, the oldest first."""


@dataclass(frozen=True, slots=True)
class HeldBack:
    """What holds queued runs back now, by the database's clock."""

    paused: set[tuple[str, str]]
    caps: Mapping[str, int]
    now: datetime


@dataclass(frozen=True, slots=True)
class Group:
    """Due runs that begin or wait together."""

    queue: str
    priority: int
    version: str
    name: str
    batch: str | None
    oldest: datetime

    @property
    def marks(self) -> set[tuple[str, str]]:
        """Return the pauses that would hold it back."""
        of_batch = {(Kind.BATCH, self.batch), (BUDGET, self.batch)} if self.batch else set()
        return {(Kind.ASSISTANT, self.name), *of_batch}

    def runs(self, connection: Connection, room: int) -> Sequence[Any]:
        """Return its oldest runs."""
        if room <= 0:
            return ()
        which = {"queue": self.queue, "priority": self.priority, "version": self.version, "room": room}
        if self.batch is None:
            return connection.execute(_SINGLE, which).all()
        return connection.execute(_OF_BATCH, {**which, "batch": self.batch}).all()


@dataclass(frozen=True, slots=True)
class CapView:
    """How many runs of an assistant are in progress, of at most how many, and how many are due to begin."""

    assistant: str
    max_active: int
    active: int
    due: int


_HELD_BACK = select(
    select(func.count()).select_from(Pause).scalar_subquery(),
    select(func.count()).select_from(Cap).scalar_subquery(),
    from_now(),
)


def held_back(connection: Connection) -> HeldBack | None:
    """Return what holds runs back, None where nothing does, as is most often so."""
    pauses, caps, now = connection.execute(_HELD_BACK).one()
    if not pauses and not caps:
        return None
    paused = {(row.kind, row.name) for row in connection.execute(select(Pause.kind, Pause.name))}
    return HeldBack(paused, {row.assistant: row.max_active for row in connection.execute(select(Cap))}, now)


# A loose scan: each min() is one step into the index, and so is each group. PostgreSQL does not see that all NULLs are
# alike: unless they too are in the order that is asked for, it reads and sorts every run without a batch.
_GROUPS = text(f"""
    WITH RECURSIVE level (priority) AS (
        SELECT 0 UNION ALL SELECT priority + 1 FROM level WHERE priority < 9
    ), version (priority, id) AS (
        SELECT priority, (
            SELECT min(assistant_id) FROM runwright_runs
            WHERE {BEGINS} AND queue = :queue AND runwright_runs.priority = level.priority
        ) FROM level
        UNION ALL SELECT priority, (
            SELECT min(assistant_id) FROM runwright_runs
            WHERE {BEGINS} AND queue = :queue AND runwright_runs.priority = version.priority
            AND assistant_id > version.id
        ) FROM version WHERE version.id IS NOT NULL
    ), batch (priority, version, id) AS (
        SELECT priority, id, (
            SELECT min(batch_id) FROM runwright_runs
            WHERE {BEGINS} AND queue = :queue AND runwright_runs.priority = version.priority
            AND assistant_id = version.id
        ) FROM version WHERE version.id IS NOT NULL
        UNION ALL SELECT priority, version, (
            SELECT min(batch_id) FROM runwright_runs
            WHERE {BEGINS} AND queue = :queue AND runwright_runs.priority = batch.priority
            AND assistant_id = batch.version AND batch_id > batch.id
        ) FROM batch WHERE batch.id IS NOT NULL
    )
    SELECT priority, version, id AS batch, (
        SELECT min(due_at) FROM runwright_runs
        WHERE {BEGINS} AND queue = :queue AND runwright_runs.priority = batch.priority
        AND assistant_id = batch.version AND batch_id = batch.id
    ) AS oldest FROM batch WHERE id IS NOT NULL
    UNION ALL SELECT priority, id, NULL, (
        SELECT due_at FROM runwright_runs
        WHERE {BEGINS} AND queue = :queue AND runwright_runs.priority = version.priority
        AND assistant_id = version.id AND batch_id IS NULL
        ORDER BY batch_id, due_at LIMIT 1
    ) FROM version WHERE id IS NOT NULL
""").columns(oldest=UtcDateTime())  # noqa: S608 - what goes into the text is a constant of ours
_NAMES = select(Assistant.id, Assistant.name).where(Assistant.id.in_(bindparam("ids", expanding=True)))
_DUE = (
    select(Run.id, Run.priority, Run.due_at)
    .where(Run.queue == bindparam("queue"), Run.due_at <= from_now())
    .limit(bindparam("room"))
)
_GOING_ON = _DUE.where(GOES_ON).order_by(Run.priority.desc(), Run.due_at)
_OF_VERSION = _DUE.where(BEGINS, Run.priority == bindparam("priority"), Run.assistant_id == bindparam("version"))
_SINGLE = _OF_VERSION.where(Run.batch_id.is_(None)).order_by(Run.batch_id, Run.due_at)
_OF_BATCH = _OF_VERSION.where(Run.batch_id == bindparam("batch")).order_by(Run.due_at)
_LOCK = select(Cap.assistant).where(Cap.assistant.in_(bindparam("names", expanding=True))).order_by(Cap.assistant)
_ACTIVE = (
    select(Assistant.name, func.count())
    .join(Run, Run.assistant_id == Assistant.id)
    .where(IN_PROGRESS, Assistant.name.in_(bindparam("names", expanding=True)))
    .group_by(Assistant.name)
)
_WAITING = (
    select(Assistant.name, func.count())
    .join(Run, Run.assistant_id == Assistant.id)
    .where(BEGINS, Run.due_at <= from_now(), Assistant.name.in_(bindparam("names", expanding=True)))
    .group_by(Assistant.name)
)
_QUEUED = (
    select(Run.queue, Run.priority, Run.assistant_id, Run.batch_id, Run.available_at, Assistant.name)
    .join(Assistant, Assistant.id == Run.assistant_id)
    .where(Run.id == bindparam("id"), Run.status == Status.QUEUED.value)
)


def due(connection: Connection, queues: Sequence[str], limit: int, back: HeldBack, *, lock: bool) -> list[str]:
    """Return up to `limit` due runs: those that go on, then the most urgent, then those that wait longest to begin.

    With `lock` no other claim counts the runs of a capped assistant before this transaction has ended.
    """
    groups = [group for queue in queues for group in _allowed(connection, queue, back)]
    room = _room(connection, {group.name for group in groups}, back.caps, lock=lock)
    open_ones = [group for group in groups if room.get(group.name, 1) > 0]
    groups = sorted(open_ones, key=lambda group: (-group.priority, group.oldest))[:_MOST]
    found: list[tuple[Any, str | None]]
    found = [(run, None) for queue in queues for run in connection.execute(_GOING_ON, {"queue": queue, "room": limit})]
    for group in groups:
        found += [(run, group.name) for run in group.runs(connection, min(limit, room.get(group.name, limit)))]
    found.sort(key=lambda one: (one[1] is not None, -one[0].priority, one[0].due_at))
    return _first(found, room, limit)


def _first(found: Sequence[tuple[Any, str | None]], room: dict[str | None, int], limit: int) -> list[str]:
    """Choose in order, of each capped assistant no more than it has room for."""
    taken: list[str] = []
    for run, name in found:
        if len(taken) == limit:
            break
        if room.get(name, 1) > 0:
            taken.append(run.id)
            if name in room:
                room[name] -= 1
    return taken


def _allowed(connection: Connection, queue: str, back: HeldBack) -> list[Group]:
    """Return the groups of a queue that have a due run and are not paused."""
    if (Kind.QUEUE, queue) in back.paused:
        return []
    rows = [row for row in connection.execute(_GROUPS, {"queue": queue}) if row.oldest and row.oldest <= back.now]
    names = dict(connection.execute(_NAMES, {"ids": list({row.version for row in rows})}).all()) if rows else {}
    groups = [Group(queue, row.priority, row.version, names[row.version], row.batch, row.oldest) for row in rows]
    return [group for group in groups if not back.paused & group.marks]


def _room(
    connection: Connection, names: Collection[str], caps: Mapping[str, int], *, lock: bool
) -> dict[str | None, int]:
    """Count how many more runs of each capped assistant may begin; under the lock of their caps, in a fresh look."""
    capped = {"names": [name for name in names if name in caps]}
    if not capped["names"]:
        return {}
    connection.execute(_LOCK.with_for_update() if lock else _LOCK, capped)
    active = dict(connection.execute(_ACTIVE, capped).all())
    return {name: caps[name] - active.get(name, 0) for name in capped["names"]}


def why(connection: Connection, run_id: str) -> list[str]:
    """Say what holds a queued run back; nothing where it may begin, or has begun."""
    row = connection.execute(_QUEUED, {"id": run_id}).one_or_none()
    if row is None:
        return []
    group = Group(row.queue, row.priority, row.assistant_id, row.name, row.batch_id, row.available_at)
    marks = {(Kind.QUEUE, row.queue), *group.marks}
    said = [
        f"{pause.kind} {pause.name}: {pause.reason or 'paused'}"
        for pause in connection.execute(select(Pause).order_by(Pause.kind))
        if (pause.kind, pause.name) in marks
    ]
    return said + [
        f"assistant {cap.assistant}: {cap.active} runs in progress, of at most {cap.max_active}"
        for cap in caps(connection)
        if cap.assistant == row.name and cap.active >= cap.max_active
    ]


def caps(connection: Connection) -> list[CapView]:
    """Return where each capped assistant stands."""
    names = {"names": [row.assistant for row in connection.execute(select(Cap.assistant))]}
    if not names["names"]:
        return []
    active, waiting = (dict(connection.execute(statement, names).all()) for statement in (_ACTIVE, _WAITING))
    return [
        CapView(row.assistant, row.max_active, active.get(row.assistant, 0), waiting.get(row.assistant, 0))
        for row in connection.execute(select(Cap).order_by(Cap.assistant))
    ]
