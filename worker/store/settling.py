"""A run ends, is tried again, or is let go: one unit each, shown owner and fence, the turn kept or passed on.

Each raises LostClaim where the run is no longer its caller's.
"""

from dataclasses import dataclass, field

from sqlalchemy import bindparam, func, insert, literal, select, update

from worker.conditions import UNDECIDED
from worker.dbtime import from_now
from worker.lifecycle import Event, Status, after
from worker.models import Conversation, Message, Outgoing, Run, ToolCall
from worker.response import Asked, HostedCall, Item, Usage
from worker.store import items, ledger, locks, outbox
from worker.store.gathered import NOW, FromNow
from worker.store.held import Hold, under_thread

_LEAVE = (
    update(Conversation)
    .where(Conversation.thread_id.in_(bindparam("all", expanding=True)), Conversation.left_at.is_(None))
    .values(left_at=from_now())
)
_SAY_INPUT = insert(Message).from_select(
    ["thread_id", "run_id", "role", "content"],
    select(Run.thread_id, Run.id, literal("user"), Run.input).where(Run.id.in_(bindparam("all", expanding=True))),
)


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
    items: tuple[Item, ...] = ()
    """What its last step adds to a conversation that we keep."""
    hosted: tuple[HostedCall, ...] = ()
    """What the provider's own tools did in its last step."""
    parts: tuple[Item, ...] = ()
    """The answer as parts of a message, where it holds more than `output_text`."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The status a run ended in, and the queue of the run that got its turn."""

    status: Status
    next_queue: str | None


@under_thread
def settle(hold: Hold, end: End) -> Settled:
    """Write the end of a run and give its turn to the next."""
    row, status = hold.row, hold.status
    if row.cancel_asked:  # the owner may not have seen it yet; what was asked before the end is final
        status = after(status, Event.ASK_CANCEL)
    status = after(status, end.event)
    hold.change(
        status=status.value,
        turn=False,
        owner=None,
        finished_at=NOW,
        output_text=end.output_text,
        error_code=end.error_code,
        error_message=end.error_message,
    )
    if end.adopted:
        hold.adopt(row.step)
    if end.left_open:
        ledger.enter(hold, row.step, end.left_open, {}, closed=end.abandon)
    elif end.answered:
        ledger.close(hold)
    _end_attempt(hold, end)
    _write_messages(hold, end)
    _leave_conversation(hold, end)
    hold.note(status.value, code=end.error_code)
    for letter in outbox.letters(hold.claim, status.value, end.error_code):
        hold.writes.insert(Outgoing, letter)
    return Settled(status, _pass_on(hold))


def _pass_on(hold: Hold) -> str | None:
    first = hold.group.next_in_line.get(hold.claim.thread_id)
    if first is None:
        return None
    hold.writes.put(locks.PASS_ON, {"run": first.run_id})
    return first.queue


@under_thread
def retry(hold: Hold, delay: float, end: End, seconds_left: float) -> None:
    """Queue a further attempt in `delay` seconds, the turn kept; raises InvalidMove when cancelling.

    The run's own time stands still: a pause may hold the attempt back for long.
    """
    # A run that somebody wants cancelled does not sit out the delay first.
    due_at = NOW if hold.row.cancel_asked else FromNow(delay)
    hold.change(status=after(hold.status, Event.RETRY).value, owner=None, due_at=due_at)
    hold.change(deadline_at=None, seconds_left=seconds_left)
    _end_attempt(hold, end)
    _leave_conversation(hold, end)
    hold.note("retried", code=end.error_code, delay=round(delay, 3))


def park_until_answer(hold: Hold, seconds_left: float) -> None:
    """Let a run go until a person has answered its questions, or until they expire.

    The turn is kept and the run's own time stands still. Answers that came since the questions were asked make it due.
    """
    if hold.status is Status.IN_PROGRESS:  # a later attempt goes on from calls that an earlier one has asked for
        hold.change(status=after(hold.status, Event.NEED_TOOLS).value)
    open_until = select(func.min(ToolCall.decide_by)).where(ToolCall.run_id == hold.claim.run_id, UNDECIDED)
    decide_by = None if hold.row.cancel_asked else hold.connection.execute(open_until).scalar_one()
    hold.change(owner=None, due_at=decide_by or NOW, deadline_at=None, seconds_left=seconds_left)
    hold.note("parked")


def park_until_look(hold: Hold, seconds: float, unseen: float, seconds_left: float | None) -> None:
    """Let a run go that has nothing to do for long: any worker looks at its step when it is due.

    The turn is kept. The step was last looked at `unseen` seconds ago. `seconds_left` is what the run has where its
    time stood still, and makes its deadline anew.
    """
    if seconds_left is not None:
        hold.change(deadline_at=FromNow(seconds_left))
    hold.change(owner=None, due_at=NOW if hold.row.cancel_asked else FromNow(seconds))
    hold.change_attempt(looked_at=FromNow(-unseen), crashes=0)


def start_cancelling(hold: Hold) -> None:
    """Show that the cancel somebody asked for is being carried out."""
    if hold.status is not Status.CANCELLING:
        hold.change(status=after(hold.status, Event.ASK_CANCEL).value)
        hold.note("cancelling")


def crashed(hold: Hold, delay: float, most: int | None) -> bool:
    """Let a run go for a while, as it is, after a bug of ours; false when that happened too often.

    Its provider run is kept: the next owner goes on with it, so a bug costs time and not a second response. Without
    `most` it is not counted.
    """
    if most is not None:
        if (crashes := hold.row.crashes + 1) >= most:
            return False
        hold.change_attempt(crashes=crashes)
    hold.change(owner=None, due_at=FromNow(delay))
    hold.note("crashed", delay=round(delay, 3))
    return True


def _leave_conversation(hold: Hold, end: End) -> None:
    """Leave the conversation for a fresh one where it may be busy for ever; else keep what is known of its end.

    What a response that did not end well has added to it is the provider's secret: the next create looks first.
    """
    if end.abandon:
        ledger.close(hold)
        hold.writes.each(_LEAVE, hold.claim.thread_id)
        hold.change_thread(provider_id=None, last_item=None)
    elif end.answered:
        hold.change_thread(last_item=end.last_item)
        items.keep(hold, hold.row.conversation, end.items)
    elif end.tail_unknown:
        hold.change_thread(last_item=None)


def _end_attempt(hold: Hold, end: End) -> None:
    hold.add_usage(end.usage)
    ledger.keep_hosted(hold, hold.row.step, end.hosted)
    ended = {"ended_at": NOW, "provider_id": None, "intent_step": None}
    hold.change_attempt(**ended, error_code=end.error_code, error_message=end.error_message)


def _write_messages(hold: Hold, end: End) -> None:
    """Write what was said; the input from the run's row, since no worker keeps it until then."""
    hold.writes.each(_SAY_INPUT, hold.claim.run_id)
    if end.parts or end.output_text:
        content = list(end.parts) or [{"type": "text", "text": end.output_text}]
        whose = {"thread_id": hold.claim.thread_id, "run_id": hold.claim.run_id}
        hold.writes.insert(Message, {**whose, "role": "assistant", "content": content})
