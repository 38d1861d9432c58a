"""What outsiders may write: they ask, the owner carries it out; only a run that nobody holds is moved from here."""

from sqlalchemy import Connection, delete, func, select, update

from worker import locks
from worker.dbtime import from_now
from worker.errors import UnknownRun, UsageError
from worker.lifecycle import REOPENABLE, TERMINAL, Event, Status, after
from worker.models import Message, Run
from worker.store.journal import record


def ask_cancel(connection: Connection, run_id: str) -> tuple[Status, str | None]:
    """Ask for a cancel; returns the status now and the queue of a run that got the turn by it. Raises UnknownRun.

    A queued run is cancelled at once: no provider run of it is alive and nobody holds it. An ended run stays as it is.
    """
    thread_id = _thread_of(connection, run_id)
    locks.lock(connection, thread_id)
    row = connection.execute(select(Run).where(Run.id == run_id).with_for_update()).one()
    status = Status(row.status)
    if status in TERMINAL:
        return status, None
    asked = func.coalesce(Run.cancel_requested_at, from_now())
    if row.owner is not None or status is not Status.QUEUED:
        # A run between two owners is due already; whoever claims it sees the request first.
        connection.execute(update(Run).where(Run.id == run_id).values(cancel_requested_at=asked))
        record(connection, run_id, "cancel_requested", attempt=row.attempt)
        return status, None
    ended = {"status": after(status, Event.CANCEL).value, "turn": False, "due_at": None, "finished_at": from_now()}
    connection.execute(update(Run).where(Run.id == run_id).values(cancel_requested_at=asked, **ended))
    record(connection, run_id, "cancelled", attempt=row.attempt)
    return Status.CANCELLED, locks.pass_on(connection, thread_id) if row.turn else None


def reopen(connection: Connection, run_id: str) -> str | None:
    """Put an ended run back into its place in the thread; returns its queue if it is due. Raises UsageError.

    It gets one further attempt and a new time limit. It goes on from its last settled step where the calls of that
    step still wait for their outputs; else it asks anew.
    """
    thread_id = _thread_of(connection, run_id)
    locks.lock(connection, thread_id)
    row = connection.execute(select(Run).where(Run.id == run_id).with_for_update()).one()
    status = Status(row.status)
    if status not in REOPENABLE:
        reason = "has its result" if status is Status.COMPLETED else f"is still {status}"
        raise UsageError(f"run {run_id} {reason}; only failed, cancelled, expired and incomplete runs can be retried")
    free = locks.is_free(connection, thread_id)
    connection.execute(
        update(Run)
        .where(Run.id == run_id)
        .values(
            status=after(status, Event.REOPEN).value,
            turn=free,
            due_at=from_now() if free else None,
            available_at=from_now(),
            max_attempts=Run.attempt + 1,
            **dict.fromkeys(("deadline_at", "cancel_requested_at", "finished_at", "error_code", "error_message")),
        )
    )
    # Its messages are written when it ends: those of the end that is taken back would stand there twice.
    connection.execute(delete(Message).where(Message.run_id == run_id))
    record(connection, run_id, "reopened", attempt=row.attempt)
    return row.queue if free else None


def _thread_of(connection: Connection, run_id: str) -> str:
    thread_id = connection.execute(select(Run.thread_id).where(Run.id == run_id)).scalar_one_or_none()
    if thread_id is None:
        raise UnknownRun(run_id)
    return thread_id
