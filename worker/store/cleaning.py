"""What may be deleted by age: events of runs that ended long ago, and conversations that no run needs any more.

Only what the table of conversations says we created; a thread goes on in a fresh one that begins with its messages.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, null, or_, select, update

from worker.care.errands import Target
from worker.dbtime import from_now
from worker.models import Conversation, EventRow, Run, Thread
from worker.store import items, ledger, locks

_DAY = 86_400.0
_EVENTS = 1000


@dataclass(frozen=True, slots=True)
class OldEvents:
    """Some events that may go; `last` is where the next look begins, None where everything old has been seen."""

    ids: Sequence[int]
    last: int | None


def old_events(connection: Connection, days: float, after: int = 0) -> OldEvents:
    """Return events of runs that ended more than so many days ago, from the oldest on.

    Events are numbered in the order of their time: the look ends at the first young page and reads no table of runs.
    """
    page = select(EventRow.id, EventRow.run_id, (EventRow.at < _ago(days)).label("old"))
    rows = connection.execute(page.where(EventRow.id > after).order_by(EventRow.id).limit(_EVENTS)).all()
    of_old = {row.run_id for row in rows if row.old}
    ended = select(Run.id).where(Run.id.in_(of_old), Run.finished_at < _ago(days))
    gone = set(connection.execute(ended).scalars()) if of_old else set()
    whole = len(rows) == _EVENTS and rows[-1].old
    return OldEvents([row.id for row in rows if row.old and row.run_id in gone], rows[-1].id if whole else None)


def delete_events(connection: Connection, ids: Sequence[int]) -> int:
    """Delete these events; returns how many were there."""
    return connection.execute(delete(EventRow).where(EventRow.id.in_(ids))).rowcount if ids else 0


def places(connection: Connection) -> list[str]:
    """Return where there are conversations of ours."""
    there = select(Conversation.place).where(Conversation.deleted_at.is_(None)).distinct()
    return list(connection.execute(there).scalars())


def old_conversations(connection: Connection, days: float, limit: int, after: str, place: str) -> list[Target]:
    """Return conversations at a place that no run has needed for so many days, by id, those behind `after`."""
    rows = select(Conversation.id, Conversation.place).where(_unneeded(days), Conversation.place == place)
    rows = rows.where(Conversation.id > after)
    return [Target(*row) for row in connection.execute(rows.order_by(Conversation.id).limit(limit))]


def count_conversations(connection: Connection, days: float, at: Collection[str]) -> int:
    """Count the conversations at these places that no run has needed for so many days."""
    old = select(func.count()).select_from(Conversation).where(_unneeded(days), Conversation.place.in_(at))
    return connection.execute(old).scalar_one()


def release(connection: Connection, conversation: str, days: float) -> bool:
    """Take the conversation from its thread if still no run needs it; only then may it be deleted at the provider.

    Calls that are open in it are closed: the next conversation of the thread does not know them.
    """
    thread_id = connection.execute(select(Conversation.thread_id).where(Conversation.id == conversation)).scalar_one()
    locks.lock(connection, thread_id)
    # In a statement of its own: what was committed while we waited for the lock must be seen.
    still = update(Conversation).where(Conversation.id == conversation, _unneeded(days))
    if not connection.execute(still.values(left_at=func.coalesce(Conversation.left_at, from_now()))).rowcount:
        return False
    current = update(Thread).where(Thread.id == thread_id, Thread.provider_id == conversation)
    if connection.execute(current.values(provider_id=null(), last_item=null())).rowcount:
        ledger.close_without_a_run(connection, thread_id)
    return True


def deleted(connection: Connection, conversations: Sequence[str]) -> None:
    """Keep that these conversations are no longer there."""
    items.forget(connection, conversations)
    connection.execute(update(Conversation).where(Conversation.id.in_(conversations)).values(deleted_at=from_now()))


def _unneeded(days: float) -> ColumnElement[bool]:
    """It was left long ago, or no run of its thread is under way or has ended since."""
    of_thread = Run.thread_id == Conversation.thread_id
    needed = exists().where(of_thread, or_(Run.finished_at.is_(None), Run.finished_at >= _ago(days)))
    idle = and_(Conversation.created_at < _ago(days), ~needed)
    return and_(Conversation.deleted_at.is_(None), or_(Conversation.left_at < _ago(days), idle))


def _ago(days: float) -> from_now:
    return from_now(-days * _DAY)
