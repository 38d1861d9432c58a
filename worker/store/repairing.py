"""What `doctor --fix` mends: each unit locks in order, looks again whether it is still so, and says what it did."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, false, null, select, update

from worker.dbtime import from_now
from worker.models import Run, ToolCall, Worker
from worker.store import auditing, leases, locks
from worker.store.journal import record

# A run that nobody holds may be made due by anybody; only its owner writes the rest of its course.
_FREE = Run.turn & Run.owner.is_(None) & ~auditing.ENDED


def pass_turn(connection: Connection, thread_id: str) -> bool:
    """Give the thread's turn to the first run that waits, if still nobody has it."""
    locks.lock(connection, thread_id)
    return locks.is_free(connection, thread_id) and locks.pass_on(connection, thread_id) is not None


def release(connection: Connection, run_id: str) -> bool:
    """Make a run due whose owner is no worker that is there."""
    orphaned = (auditing.orphaned(), ~auditing.ENDED)
    return _change(connection, run_id, *orphaned, owner=null(), due_at=from_now())


def reap(connection: Connection, worker: str, lease: float) -> bool:
    """Make the runs of a worker due whose lease ran out more than `lease` seconds ago."""
    dead = select(Worker.id).where(Worker.id == worker, Worker.lease_until < from_now(-lease))
    if connection.execute(dead.with_for_update()).scalar_one_or_none() is None:
        return False
    leases.leave(connection, worker)
    return True


def make_due(connection: Connection, run_id: str) -> bool:
    """Make a run due that has the turn, no owner and no due time."""
    return _change(connection, run_id, _FREE, Run.due_at.is_(None), due_at=from_now())


def clear_end(connection: Connection, run_id: str) -> bool:
    """Take owner, due time and turn from a run that has ended, and pass the turn on."""
    ended = (auditing.ENDED, auditing.holds())
    thread_id = locks.lock_thread_of(connection, run_id)
    if not _change(connection, run_id, *ended, turn=false(), owner=null(), due_at=null()):
        return False
    if locks.is_free(connection, thread_id):
        locks.pass_on(connection, thread_id)
    return True


def set_limit(connection: Connection, run_id: str, seconds: float) -> bool:
    """Give the questions of a run that have no end one, and make it due, so that its next owner parks it anew."""
    endless = (ToolCall.run_id == run_id, auditing.asks(), ToolCall.decide_by.is_(None))
    if not _change(connection, run_id, _FREE, exists().where(*endless), due_at=from_now()):
        return False
    connection.execute(update(ToolCall).where(*endless).values(decide_by=from_now(seconds)))
    return True


def end_question(connection: Connection, run_id: str) -> bool:
    """Make a parked run due whose question ran out long ago."""
    late = exists().where(ToolCall.run_id == run_id, auditing.asks(), ToolCall.decide_by < from_now(-auditing.LATE))
    return _change(connection, run_id, _FREE, auditing.not_due(), late, due_at=from_now())


def _change(connection: Connection, run_id: str, *conditions: ColumnElement[bool], **values: Any) -> bool:
    """Change the run if all of this still holds under its thread's lock, and note it among its events."""
    locks.lock_thread_of(connection, run_id)
    changed = update(Run).where(Run.id == run_id, *conditions).values(**values)
    if not connection.execute(changed).rowcount:
        return False
    record(connection, run_id, "repaired")
    return True
