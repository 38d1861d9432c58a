"""A run ends, is tried again, or is let go: one transaction each, shown owner and fence, the turn kept or passed on."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, case, func, insert, select, update

from worker import locks
from worker.dbtime import from_now
from worker.lifecycle import Event, Status, after
from worker.models import UNDECIDED, Attempt, Conversation, Message, Run, Thread, ToolCall
from worker.response import Asked, Usage
from worker.store import held, ledger, outbox
from worker.store.claiming import Claim
from worker.store.held import change, change_attempt, hold, note


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended: what was reached is kept even where it failed."""

    event: Event
    output_text: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    usage: Usage = field(default_factory=Usage)
    answered: bool = False
    """Its last response ended well, so the outputs that it was given are in the conversation for good."""
    left_open: tuple[Asked, ...] = ()
    """Calls which that response asked for and which will not run any more."""
    last_item: str | None = None
    tail_unknown: bool = False
    """Its last response failed or was stopped: nobody can tell what it added to the conversation."""
    abandon: bool = False
    """Its last response may still go on, or nobody knows: the thread goes on in a fresh conversation."""
    adopted: bool = False
    """Its last response was found in the conversation, its id never learnt."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The status a run ended in, and the queue of the run that got its turn."""

    status: Status
    next_queue: str | None


def settle(connection: Connection, claim: Claim, end: End) -> Settled:
    """Write the end of a run and give its turn to the next; raises LostClaim."""
    locks.lock(connection, claim.thread_id)
    row = hold(connection, claim)
    status = Status(row.status)
    if row.cancel_requested_at:  # the owner may not have seen it yet; what was asked before the end is final
        status = after(status, Event.ASK_CANCEL)
    status = after(status, end.event)
    change(
        connection,
        claim,
        status=status.value,
        turn=False,
        owner=None,
        finished_at=from_now(),
        output_text=end.output_text,
        error_code=end.error_code,
        error_message=end.error_message,
    )
    if end.adopted:
        held.adopt(connection, claim, row.step)
    if end.left_open:
        ledger.enter(connection, claim, row.step, end.left_open, {})
    elif end.answered:
        ledger.close(connection, claim.thread_id)
    _end_attempt(connection, claim, end)
    _write_messages(connection, claim, end)
    _leave_conversation(connection, claim, end)
    note(connection, claim, status.value, code=end.error_code)
    if claim.store_result or claim.on_end:
        outbox.run_ended(connection, claim.run_id)
    return Settled(status, locks.pass_on(connection, claim.thread_id))


def retry(connection: Connection, claim: Claim, delay: float, end: End) -> None:
    """Queue a further attempt in `delay` seconds, the turn kept; raises LostClaim, InvalidMove when cancelling."""
    locks.lock(connection, claim.thread_id)
    status = after(held.status(connection, claim), Event.RETRY)
    # A run that somebody wants cancelled does not sit out the delay first.
    due_at = case((Run.cancel_requested_at.is_not(None), from_now()), else_=from_now(delay))
    change(connection, claim, status=status.value, owner=None, due_at=due_at)
    _end_attempt(connection, claim, end)
    _leave_conversation(connection, claim, end)
    note(connection, claim, "retried", code=end.error_code, delay=round(delay, 3))


def park(connection: Connection, claim: Claim, seconds_left: float) -> None:
    """Let a run go until a person has answered its questions, or until they expire; raises LostClaim.

    The turn is kept and the run's own time stands still. Answers that came since the questions were asked make it due.
    """
    status = held.status(connection, claim)
    if status is Status.IN_PROGRESS:  # a later attempt goes on from calls that an earlier one has asked for
        change(connection, claim, status=after(status, Event.NEED_TOOLS).value)
    open_until = select(func.min(ToolCall.decide_by)).where(ToolCall.run_id == claim.run_id, UNDECIDED)
    due_at = case(
        (Run.cancel_requested_at.is_not(None), from_now()),
        else_=func.coalesce(open_until.scalar_subquery(), from_now()),
    )
    change(connection, claim, owner=None, due_at=due_at, deadline_at=None, seconds_left=seconds_left)
    note(connection, claim, "parked")


def start_cancelling(connection: Connection, claim: Claim) -> None:
    """Show that the cancel somebody asked for is being carried out; raises LostClaim."""
    status = held.status(connection, claim)
    if status is not Status.CANCELLING:
        change(connection, claim, status=after(status, Event.ASK_CANCEL).value)
        note(connection, claim, "cancelling")


def crashed(connection: Connection, claim: Claim, delay: float, most: int) -> bool:
    """Let a run go for a while, as it is, after a bug of ours; false when that happened too often. Raises LostClaim.

    Its provider run is kept: the next owner goes on with it, so a bug costs time and not a second response.
    """
    hold(connection, claim)
    mine = (Attempt.run_id == claim.run_id, Attempt.number == claim.attempt)
    if connection.execute(select(Attempt.crashes).where(*mine)).scalar_one() + 1 >= most:
        return False
    change_attempt(connection, claim, crashes=Attempt.crashes + 1)
    change(connection, claim, owner=None, due_at=from_now(delay))
    note(connection, claim, "crashed", delay=round(delay, 3))
    return True


def _leave_conversation(connection: Connection, claim: Claim, end: End) -> None:
    """Leave the conversation for a fresh one where it may be busy for ever; else keep what is known of its end.

    What a response that did not end well has added to it is the provider's secret: the next create looks first.
    """
    values: dict[str, Any] = {}
    if end.abandon:
        ledger.close(connection, claim.thread_id)
        left = update(Conversation).where(Conversation.thread_id == claim.thread_id, Conversation.left_at.is_(None))
        connection.execute(left.values(left_at=from_now()))
        values = {"provider_id": None, "last_item": None}
    elif end.answered:
        values = {"last_item": end.last_item}
    elif end.tail_unknown:
        values = {"last_item": None}
    if values:
        connection.execute(update(Thread).where(Thread.id == claim.thread_id).values(**values))


def _end_attempt(connection: Connection, claim: Claim, end: End) -> None:
    held.add_usage(connection, claim, end.usage)
    ended = {"ended_at": from_now(), "provider_id": None, "intent_step": None}
    change_attempt(connection, claim, **ended, error_code=end.error_code, error_message=end.error_message)


def _write_messages(connection: Connection, claim: Claim, end: End) -> None:
    rows = [{"thread_id": claim.thread_id, "run_id": claim.run_id, "role": "user", "content": claim.input}]
    if end.output_text:
        content = [{"type": "text", "text": end.output_text}]
        rows.append({"thread_id": claim.thread_id, "run_id": claim.run_id, "role": "assistant", "content": content})
    connection.execute(insert(Message), rows)
