"""What a run has reached at the provider: the intent before a create, the id after it, the steps that are settled.

From these rows alone any worker can go on after a crash: a known provider id is waited for, never asked for again.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, insert, select, update

from worker import locks
from worker.dbtime import from_now
from worker.lifecycle import Event, Status, after
from worker.models import Attempt, Conversation, Thread
from worker.response import Asked, Usage
from worker.store import held, ledger
from worker.store.claiming import Claim
from worker.store.held import change, change_attempt, hold, note


def set_conversation(connection: Connection, claim: Claim, provider_id: str, last_item: str | None) -> None:
    """Keep the provider's conversation for the thread; raises LostClaim. Twice is as good as once."""
    locks.lock(connection, claim.thread_id)
    hold(connection, claim)
    now_there = {"provider_id": provider_id, "last_item": last_item}
    connection.execute(update(Thread).where(Thread.id == claim.thread_id).values(**now_there))
    if connection.execute(select(Conversation.id).where(Conversation.id == provider_id)).first() is None:
        connection.execute(insert(Conversation).values(id=provider_id, thread_id=claim.thread_id))


def intend(connection: Connection, claim: Claim, step: int, last_item: str | None) -> None:
    """Say, before the request goes out, that this step is about to be created; raises LostClaim."""
    hold(connection, claim)
    change_attempt(connection, claim, intent_at=from_now(), intent_step=step, intent_after=last_item)


def withdraw(connection: Connection, claim: Claim) -> None:
    """Take the intent back: the provider said that nothing was created; raises LostClaim."""
    hold(connection, claim)
    change_attempt(connection, claim, intent_step=None)


def mark_unknown(connection: Connection, claim: Claim) -> None:
    """Keep that nobody can tell whether the provider run of this attempt exists; raises LostClaim."""
    hold(connection, claim)
    change_attempt(connection, claim, unknown=True)
    note(connection, claim, "unknown")


def created(connection: Connection, claim: Claim, step: int, provider_id: str, request_id: str | None = None) -> None:
    """Keep the provider's id of this step and go back to waiting; raises LostClaim. Twice is as good as once."""
    status = held.status(connection, claim)
    mine = select(Attempt.provider_ids).where(Attempt.run_id == claim.run_id, Attempt.number == claim.attempt)
    chain = connection.execute(mine).scalar_one()
    if provider_id in chain:
        return
    chain = [*chain, provider_id]
    change_attempt(connection, claim, provider_id=provider_id, provider_ids=chain, intent_step=None)
    if step:
        change(connection, claim, status=after(status, Event.SUBMIT).value)
    note(connection, claim, "created", step=step, provider_id=provider_id, request_id=request_id)


def need_tools(
    connection: Connection,
    claim: Claim,
    *,
    step: int,
    calls: Sequence[Asked],
    effects: Mapping[str, str],
    usage: Usage,
    last_item: str | None,
    adopted: bool = False,
) -> None:
    """Settle the step's response: its calls enter the ledger; raises LostClaim. Twice is as good as once.

    `effects` says of each tool by name what calling it again does; `adopted` that the response's id was never learnt.
    """
    locks.lock(connection, claim.thread_id)
    row = hold(connection, claim)
    if row.step > step:
        return
    status = Status(row.status)
    if adopted:
        held.adopt(connection, claim, step)
        status = after(status, Event.SUBMIT)
    status = after(status, Event.NEED_TOOLS)
    ledger.enter(connection, claim, step, calls, effects)
    change(connection, claim, status=status.value, step=step + 1)
    held.add_usage(connection, claim, usage)
    change_attempt(connection, claim, provider_id=None)
    connection.execute(update(Thread).where(Thread.id == claim.thread_id).values(last_item=last_item))
    note(connection, claim, "requires_action", tools=[call.name for call in calls])
