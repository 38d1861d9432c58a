"""What a run has reached at the provider: the intent before a create, the id after it, the steps that are settled.

From these rows alone any worker can go on after a crash: a known provider id is waited for, never asked for again.
Each unit raises LostClaim where the run is no longer its caller's, and twice is as good as once.
"""

import json
from collections.abc import Mapping, Sequence

from worker.lifecycle import Event, after
from worker.models import Conversation
from worker.response import Asked, HostedCall, Item, Opened, Usage
from worker.store import items, ledger
from worker.store.gathered import NOW, FromNow
from worker.store.held import Hold, under_thread


@under_thread
def set_conversation(hold: Hold, opened: Opened, place: str, last_item: str | None) -> None:
    """Keep the thread's new conversation; one that it had at another place is left, with the calls open there."""
    if hold.row.conversation == opened.id:
        return
    if hold.row.conversation is not None:
        ledger.close(hold)
        hold.writes.update(Conversation, {"id": hold.row.conversation}, {"left_at": NOW})
    hold.change_thread(provider_id=opened.id, last_item=last_item)
    hold.before.insert(Conversation, {"id": opened.id, "thread_id": hold.claim.thread_id, "place": place})
    items.keep(hold, opened.id, opened.items)


def intend(
    hold: Hold, step: int, last_item: str | None, *, again: bool = False, seconds_left: float | None = None
) -> None:
    """Say, before the request goes out, that this step is about to be created.

    `again` says that a worker before has asked for it and that nobody can go on with that; one claim says so once.
    `seconds_left` is what the run has where its time stood still meanwhile.
    """
    if seconds_left is not None:
        hold.change(deadline_at=FromNow(seconds_left))
    hold.change_attempt(intent_at=NOW, intent_step=step, intent_after=last_item)
    if again and hold.row.reissued == hold.claim.reissued:
        hold.change_attempt(reissued=hold.row.reissued + 1, provider_id=None)
        hold.note("reissued", step=step)


def withdraw(hold: Hold) -> None:
    """Take the intent back: the provider said that nothing was created."""
    hold.change_attempt(intent_step=None)


def refused(hold: Hold, code: str | None, failures: int) -> None:
    """Tell whoever looks at the run that the provider has refused a request of it so many times, and is asked again.

    Without a code it has taken that request after all.
    """
    hold.note("refused", code=code, failures=failures)


def mark_unknown(hold: Hold) -> None:
    """Keep that nobody can tell whether the provider run of this attempt exists."""
    hold.change_attempt(unknown=True)
    hold.note("unknown")


def created(hold: Hold, step: int, provider_id: str, request_id: str | None = None) -> None:
    """Keep the provider's id of this step and go back to waiting."""
    if hold.row.provider_id == provider_id:
        return
    chain = [*json.loads(hold.row.provider_ids), provider_id]
    hold.change_attempt(provider_id=provider_id, provider_ids=chain, intent_step=None)
    if step:
        hold.change(status=after(hold.status, Event.SUBMIT).value)
    hold.note("created", step=step, provider_id=provider_id, request_id=request_id)


@under_thread
def need_tools(
    hold: Hold,
    *,
    step: int,
    calls: Sequence[Asked],
    effects: Mapping[str, str],
    usage: Usage,
    last_item: str | None,
    added: Sequence[Item] = (),
    hosted: Sequence[HostedCall] = (),
    adopted: bool = False,
) -> None:
    """Settle the step: its calls enter the ledger, and what it `added` to a conversation that we keep stands there.

    `effects` says of each tool by name what calling it again does; `hosted` are calls that the provider has carried out
    itself; `adopted` says that the response's id was never learnt.
    """
    if hold.row.step > step:
        return
    status = hold.status
    if adopted:
        hold.adopt(step)
        status = after(status, Event.SUBMIT)
    status = after(status, Event.NEED_TOOLS)
    ledger.enter(hold, step, calls, effects)
    ledger.keep_hosted(hold, step, hosted)
    items.keep(hold, hold.row.conversation, added)
    hold.change(status=status.value, step=step + 1)
    hold.add_usage(usage)
    hold.change_attempt(provider_id=None)
    hold.change_thread(last_item=last_item)
    hold.note("requires_action", tools=[call.name for call in calls], calls=[call.call_id for call in calls])
