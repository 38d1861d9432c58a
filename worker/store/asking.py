"""What outsiders may write: they ask, the owner carries it out; only a run that nobody holds is moved from here."""

from sqlalchemy import Connection, delete, func, select, update

from worker.conditions import UNDECIDED
from worker.dbtime import from_now
from worker.errors import UsageError
from worker.lifecycle import REOPENABLE, TERMINAL, Event, Status, after
from worker.models import Message, Run, ToolCall
from worker.store import batches, locks, outbox
from worker.store.journal import record


def ask_cancel(connection: Connection, run_id: str) -> tuple[Status, str | None]:
    """Ask for a cancel; returns the status now and the queue of a run that is due by it. Raises UnknownRun.

    A queued run is cancelled at once: no provider run of it is alive and nobody holds it; the next of its thread is
    due. One that was begun and that nobody holds is due itself: who claims it cancels it. An ended run stays as it is.
    """
    thread_id = locks.lock_thread_of(connection, run_id)
    row = connection.execute(select(Run).where(Run.id == run_id).with_for_update()).one()
    status = Status(row.status)
    if status in TERMINAL:
        return status, None
    asked = func.coalesce(Run.cancel_requested_at, from_now())
    if row.owner is not None or status is not Status.QUEUED:
        # A parked run does not wait for its question any longer; whoever claims it sees the request first.
        due = {} if row.owner is not None else {"due_at": from_now()}
        connection.execute(update(Run).where(Run.id == run_id).values(cancel_requested_at=asked, **due))
        if row.cancel_requested_at is None:
            record(connection, run_id, "cancel_requested", attempt=row.attempt)
        return status, row.queue if due else None
    ended = {"status": after(status, Event.CANCEL).value, "turn": False, "due_at": None, "finished_at": from_now()}
    connection.execute(update(Run).where(Run.id == run_id).values(cancel_requested_at=asked, **ended))
    record(connection, run_id, "cancelled", attempt=row.attempt)
    outbox.run_ended(connection, run_id)
    return Status.CANCELLED, locks.pass_on(connection, thread_id) if row.turn else None


def reopen(connection: Connection, run_id: str, *, start_over: bool = False) -> str | None:
    """Put an ended run back into its place in the thread; returns its queue if it is due. Raises UsageError.

    It gets one further attempt and a new time limit. It goes on from its last settled step where the calls of that
    step still wait for their outputs; else it asks anew, which is refused where that could repeat a `once` call,
    unless `start_over` is given.
    """
    thread_id = locks.lock_thread_of(connection, run_id)
    row = connection.execute(select(Run).where(Run.id == run_id).with_for_update()).one()
    status = Status(row.status)
    if status not in REOPENABLE:
        reason = "has its result" if status is Status.COMPLETED else f"is still {status}"
        raise UsageError(f"run {run_id} {reason}; only failed, cancelled, expired and incomplete runs can be retried")
    free = locks.is_free(connection, thread_id)
    if start_over:
        # Who asks for this takes the repetition on: from here on the old calls hinder no attempt.
        begun = update(ToolCall).where(ToolCall.run_id == run_id, ToolCall.effect == "once")
        connection.execute(begun.values(effect="idempotent"))
    else:
        _refuse_to_repeat(connection, run_id, waits=not free)
    connection.execute(
        update(Run)
        .where(Run.id == run_id)
        .values(
            status=after(status, Event.REOPEN).value,
            turn=free,
            due_at=from_now() if free else None,
            available_at=from_now(),
            max_attempts=Run.attempt + 1,
            **dict.fromkeys(("deadline_at", "seconds_left", "cancel_requested_at", "finished_at")),
            **dict.fromkeys(("error_code", "error_message")),
        )
    )
    # What nobody has decided is asked anew, with a new time.
    undecided = update(ToolCall).where(ToolCall.run_id == run_id, UNDECIDED)
    connection.execute(undecided.values(question=None, decide_by=None))
    # Its messages are written when it ends: those of the end that is taken back would stand there twice.
    connection.execute(delete(Message).where(Message.run_id == run_id))
    record(connection, run_id, "reopened", attempt=row.attempt, start_over=start_over or None)
    if row.batch_id:
        batches.reopened(connection, row.batch_id)
    return row.queue if free else None


def _refuse_to_repeat(connection: Connection, run_id: str, *, waits: bool) -> None:
    """Raise UsageError where the run would ask its model anew although a call began that must not run twice.

    So would one that waits for its turn: the calls of a thread that are open are answered by whoever goes before.
    """
    columns = (ToolCall.name, ToolCall.effect, ToolCall.starts, ToolCall.closed)
    calls = connection.execute(select(*columns).where(ToolCall.run_id == run_id)).all()
    begun = sorted({call.name for call in calls if call.effect == "once" and call.starts})
    if begun and (waits or all(call.closed for call in calls)):
        raise UsageError(
            f"run {run_id} would start over and could call {', '.join(begun)} a second time; "
            f"`runwright retry --start-over {run_id}` (start_over=True) does it all the same"
        )
