"""Pauses: queued runs of a queue, an assistant or a batch are not begun until somebody resumes it.

What was begun goes on, with a worker or between two of them: its provider run is paid for. A run that somebody wants
cancelled is no longer held back: a worker carries the cancel out.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    ScalarSelect,
    and_,
    delete,
    exists,
    func,
    not_,
    or_,
    select,
    true,
    update,
)

from worker.errors import UsageError
from worker.lifecycle import Status
from worker.models import Assistant, Pause, Run
from worker.store import assistants, batches, many


class Kind(StrEnum):
    """What can be paused."""

    QUEUE = "queue"
    ASSISTANT = "assistant"
    BATCH = "batch"


BUDGET = "budget"
"""The kind of a pause that worker/store/budgets.py makes of a batch and takes back."""


def _names(*kinds: str) -> ScalarSelect[Any]:
    return select(Pause.name).where(Pause.kind.in_(kinds)).scalar_subquery()


_VERSIONS = select(Assistant.id).where(Assistant.name.in_(_names(Kind.ASSISTANT))).scalar_subquery()
PAUSED: ColumnElement[bool] = and_(
    Run.status == Status.QUEUED.value,
    Run.cancel_requested_at.is_(None),
    or_(
        Run.queue.in_(_names(Kind.QUEUE)),
        Run.assistant_id.in_(_VERSIONS),
        func.coalesce(Run.batch_id, "").in_(_names(Kind.BATCH, BUDGET)),
    ),
)


def unpaused(connection: Connection) -> ColumnElement[bool]:
    """Return the condition that a run is not paused; where nothing is, as is most often so, it asks nothing.

    For people and gauges: it steps over what is paused, and a claim does not (worker/store/groups.py).
    """
    return not_(PAUSED) if connection.execute(select(exists(select(Pause.kind)))).scalar_one() else true()


def pause(connection: Connection, kind: Kind, name: str, reason: str | None = None) -> bool:
    """Pause it and tell whether that is news; a new reason takes the old one's place. Raises UsageError."""
    _require(connection, kind, name)
    row = many.INSERT[connection.dialect.name](Pause).values(kind=kind.value, name=name, reason=reason)
    added = connection.execute(row.on_conflict_do_nothing().returning(Pause.name)).first() is not None
    if reason is not None and not added:
        connection.execute(update(Pause).where(*_is(kind, name)).values(reason=reason))
    return added


def resume(connection: Connection, kind: Kind, name: str) -> None:
    """Let its runs begin again; raises UsageError where it is not paused."""
    if not connection.execute(delete(Pause).where(*_is(kind, name))).rowcount:
        raise UsageError(f"the {kind} {name!r} is not paused; `runwright status` lists what is")


def paused(connection: Connection) -> Sequence[Any]:
    """Return what is paused (kind, name, reason, created_at), the longest first."""
    return connection.execute(select(Pause).order_by(Pause.created_at, Pause.kind, Pause.name)).all()


def _is(kind: Kind, name: str) -> tuple[ColumnElement[bool], ...]:
    return Pause.kind == kind.value, Pause.name == name


def _require(connection: Connection, kind: Kind, name: str) -> None:
    """Refuse what is not there: a pause with a typing error would hold nothing back. Any name may be a queue's."""
    if kind is Kind.ASSISTANT:
        assistants.require(connection, name)
    elif kind is Kind.BATCH:
        batches.require(connection, name)
    elif not 0 < len(name) <= 100:
        raise UsageError(f"{name!r} cannot be the name of a queue: it has 1 to 100 characters")
