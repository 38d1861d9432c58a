"""The turn of a thread: the one run that may go forward has it, and keeps it until it has ended.

This is the per-thread lock. It is a database row and not a key in Redis because a key can expire under a living owner.
UNIQUE (thread_id) WHERE turn is the backstop, the lock on the thread's row the protocol.
"""

from sqlalchemy import Connection, ScalarSelect, bindparam, case, exists, select, true, update

from worker.dbtime import from_now
from worker.models import WAITING, Run, Thread

_LOCK = select(Thread.id).where(Thread.id == bindparam("thread")).with_for_update()


def take_numbers(connection: Connection, thread_id: str, count: int = 1) -> int:
    """Lock the thread and reserve places in its line; returns the first of them."""
    statement = update(Thread).where(Thread.id == thread_id).values(next_seq=Thread.next_seq + count)
    last: int = connection.execute(statement.returning(Thread.next_seq)).scalar_one()
    return last - count + 1


def lock(connection: Connection, thread_id: str) -> None:
    """Hold the thread's row until the transaction ends: turns change hands only under it."""
    connection.execute(_LOCK, {"thread": thread_id})


def is_free(connection: Connection, thread_id: str) -> bool:
    """Tell whether no run of the thread has the turn; ask only under the thread's lock, in a statement of its own."""
    taken = exists().where(Run.thread_id == thread_id, Run.turn)
    return not connection.execute(select(taken)).scalar_one()


def pass_on(connection: Connection, thread_id: str) -> str | None:
    """Give a free turn to the first waiting run; returns its queue, None where nothing waits. Under the lock."""
    statement = (
        update(Run)
        .where(Run.id == _first_waiting(thread_id))
        .values(turn=true(), due_at=case((Run.available_at > from_now(), Run.available_at), else_=from_now()))
    )
    queue: str | None = connection.execute(statement.returning(Run.queue)).scalar_one_or_none()
    return queue


def _first_waiting(thread_id: str) -> ScalarSelect[str]:
    waiting = select(Run.id).where(Run.thread_id == thread_id, WAITING)
    return waiting.order_by(Run.seq).limit(1).scalar_subquery()
