"""The turn of a thread: the one run that may go forward has it, and keeps it until it has ended.

This is the per-thread lock. It is a database row and not a key in Redis because a key can expire under a living owner.
UNIQUE (thread_id) WHERE turn is the backstop, the lock on the thread's row the protocol.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, ScalarSelect, bindparam, case, exists, select, true, update

from worker.conditions import TURN, WAITING
from worker.dbtime import from_now
from worker.errors import UnknownRun
from worker.models import Run, Thread
from worker.store import many

_LOCK = select(Thread.id).where(Thread.id.in_(bindparam("threads", expanding=True))).order_by(Thread.id)
_WAIT_FOR_IT = _LOCK.with_for_update()
_UNLOCKED_ONES = _LOCK.with_for_update(skip_locked=True)
PASS_ON = (
    update(Run)
    .where(Run.id == bindparam("run"))
    .values(turn=true(), due_at=case((Run.available_at > from_now(), Run.available_at), else_=from_now()))
)
"""Gives the turn to the run `run`, which waits for it."""


def _first(column: Any) -> ScalarSelect[str]:
    """Look one step into the index of a thread's waiting runs, however many there are."""
    waiting = select(column).where(Run.thread_id == Thread.id, WAITING)
    return waiting.order_by(Run.seq).limit(1).scalar_subquery()


_FIRST = select(Thread.id, _first(Run.id), _first(Run.queue)).where(Thread.id.in_(bindparam("threads", expanding=True)))


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run that waits for its thread's turn."""

    run_id: str
    queue: str


def lock(connection: Connection, thread_id: str) -> None:
    """Hold the thread's row until the transaction ends: turns change hands only under it."""
    lock_all(connection, [thread_id], wait=True)


def lock_thread_of(connection: Connection, run_id: str) -> str:
    """Hold the row of a run's thread and return the thread; raises UnknownRun."""
    thread_id = connection.execute(select(Run.thread_id).where(Run.id == run_id)).scalar_one_or_none()
    if thread_id is None:
        raise UnknownRun(run_id)
    lock(connection, thread_id)
    return thread_id


def lock_all(connection: Connection, thread_ids: Sequence[str], *, wait: bool) -> set[str]:
    """Hold the rows of these threads, in their order; without `wait` only those that nobody holds. Returns which."""
    if not thread_ids:
        return set()
    return set(connection.execute(_WAIT_FOR_IT if wait else _UNLOCKED_ONES, {"threads": thread_ids}).scalars().all())


def _numbering(dialect: str) -> Any:
    given = many.table(dialect, Thread.__table__.c.id, Thread.__table__.c.next_seq)
    insert = many.INSERT[dialect](Thread.__table__)
    insert = insert.from_select(["id", "next_seq"], select(given).where(true()).order_by(given.c.id))
    places = {"next_seq": Thread.next_seq + insert.excluded.next_seq}
    return insert.on_conflict_do_update(index_elements=["id"], set_=places).returning(Thread.id, Thread.next_seq)


_NUMBER = many.built(_numbering)
_BUSY = select(Run.thread_id).where(Run.thread_id.in_(bindparam("threads", expanding=True)), TURN)


def take_numbers(connection: Connection, counts: Mapping[str, int]) -> dict[str, int]:
    """Lock the threads, made where there are none, and reserve places in their lines; returns the last of each.

    In the order of their ids, so that two producers cannot wait for each other.
    """
    asked = [{"id": thread_id, "next_seq": counts[thread_id]} for thread_id in sorted(counts)]
    return {row.id: row.next_seq for row in many.execute(connection, _NUMBER, asked)}


def busy(connection: Connection, thread_ids: Iterable[str]) -> set[str]:
    """Return the threads of which a run has the turn; ask only under their locks, in a statement of its own."""
    parts = many.chunks(list(thread_ids))
    return {thread_id for part in parts for thread_id in connection.execute(_BUSY, {"threads": part}).scalars()}


def is_free(connection: Connection, thread_id: str) -> bool:
    """Tell whether no run of the thread has the turn; ask only under the thread's lock, in a statement of its own."""
    taken = exists().where(Run.thread_id == thread_id, TURN)
    return not connection.execute(select(taken)).scalar_one()


def pass_on(connection: Connection, thread_id: str) -> str | None:
    """Give a free turn to the first waiting run; returns its queue, None where nothing waits. Under the lock."""
    first = first_waiting(connection, [thread_id]).get(thread_id)
    if first is None:
        return None
    connection.execute(PASS_ON, {"run": first.run_id})
    return first.queue


def first_waiting(connection: Connection, thread_ids: Sequence[str]) -> dict[str, Waiting]:
    """Return the first waiting run of each of these threads that has one. Under their locks."""
    rows = connection.execute(_FIRST, {"threads": thread_ids}).all()
    return {thread: Waiting(run, queue) for thread, run, queue in rows if run is not None}
