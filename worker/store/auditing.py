"""What must hold in the tables, as queries for what does not; each gives some of the findings, by name."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select
from sqlalchemy.orm import aliased

from worker.conditions import OWNED, UNDECIDED, WAITING
from worker.dbtime import from_now
from worker.lifecycle import TERMINAL, Status
from worker.models import Attempt, Batch, Conversation, Outgoing, Run, Thread, ToolCall, Worker
from worker.store import claiming

MOST = 1000
"""Findings of one look; a repair looks again."""
LATE = 600.0
"""Seconds after which what a worker does by itself within seconds counts as not done."""

ENDED = Run.status.in_([status.value for status in TERMINAL])


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not hold: the id of what it is about, and what to know of it."""

    subject: str
    told: str = ""


def several_turns(connection: Connection) -> list[Finding]:
    """Return threads of which more than one run has the turn."""
    holders = select(Run.thread_id, func.count().label("turns")).where(Run.turn).group_by(Run.thread_id)
    return _found(connection, holders.having(func.count() > 1))


def lost_turns(connection: Connection) -> list[Finding]:
    """Return threads in which runs wait and none has the turn."""
    holder = aliased(Run)
    held = exists().where(holder.thread_id == Run.thread_id, holder.turn)
    return _found(connection, select(Run.thread_id, func.count()).where(WAITING, ~held).group_by(Run.thread_id))


def stranded(connection: Connection) -> list[Finding]:
    """Return runs that have begun, have not ended and do not have their thread's turn, or are owned without it."""
    waits = Run.status == Status.QUEUED.value
    return _found(connection, _runs(Run.status).where(~ENDED, ~Run.turn, or_(~waits, Run.owner.is_not(None))))


def orphans(connection: Connection) -> list[Finding]:
    """Return runs that are held by a worker that is not there."""
    return _found(connection, _runs(Run.owner).where(OWNED, orphaned()))


def orphaned() -> ColumnElement[bool]:
    """Return the condition of a run whose owner is no worker that is there."""
    return and_(Run.owner.is_not(None), ~exists().where(Worker.id == Run.owner))


def dead_workers(connection: Connection, lease: float) -> list[Finding]:
    """Return workers whose lease ran out more than `lease` seconds ago and that nobody has reaped."""
    return _found(connection, select(Worker.id, Worker.node).where(Worker.lease_until < from_now(-lease)))


def never_due(connection: Connection) -> list[Finding]:
    """Return runs that have the turn, no owner and no due time: nobody would ever go on with them."""
    return _found(connection, _runs(Run.status).where(Run.turn, Run.owner.is_(None), Run.due_at.is_(None), ~ENDED))


def ends_with_a_hold(connection: Connection) -> list[Finding]:
    """Return ended runs that still have a turn, an owner or a due time."""
    return _found(connection, _runs(Run.status).where(ENDED, holds()))


def holds() -> ColumnElement[bool]:
    """Return the condition of a run that has something which only a run under way has."""
    return or_(Run.turn, Run.owner.is_not(None), Run.due_at.is_not(None))


def unsubmitted(connection: Connection) -> list[Finding]:
    """Return calls with an output that was never given to the provider although their run completed."""
    completed = Run.status == Status.COMPLETED.value
    return _found(connection, _left_open().where(completed, ToolCall.finished_at.is_not(None)))


def unanswered(connection: Connection) -> list[Finding]:
    """Return calls without an output that ended runs left behind in a conversation."""
    return _found(connection, _left_open().where(ENDED, ToolCall.finished_at.is_(None)))


def _left_open() -> Any:
    calls = select(ToolCall.run_id, ToolCall.call_id).join(Run, Run.id == ToolCall.run_id)
    return calls.join(Thread, Thread.id == Run.thread_id).where(~ToolCall.closed, Thread.provider_id.is_not(None))


def endless_questions(connection: Connection) -> list[Finding]:
    """Return runs that ask a person without a time by which the answer must be there."""
    return _found(connection, _asking().where(ToolCall.decide_by.is_(None)))


def late_questions(connection: Connection) -> list[Finding]:
    """Return parked runs whose question ran out long ago and that nobody is to go on with."""
    return _found(connection, _asking().where(ToolCall.decide_by < from_now(-LATE), not_due()))


def not_due() -> ColumnElement[bool]:
    """Return the condition of a run that nobody holds and nobody is to take now."""
    return and_(Run.owner.is_(None), or_(Run.due_at.is_(None), Run.due_at > from_now()))


def _asking() -> Any:
    calls = select(ToolCall.run_id, ToolCall.call_id).join(Run, Run.id == ToolCall.run_id)
    return calls.where(asks(), ~ENDED)


def asks() -> ColumnElement[bool]:
    """Return the condition of a call that a person is asked about."""
    return and_(UNDECIDED, ToolCall.finished_at.is_(None))


def unended_batches(connection: Connection) -> list[Finding]:
    """Return batches of which all has ended long ago and whose producer has not been told."""
    needed = and_(Run.batch_id == Batch.id, or_(Run.finished_at.is_(None), Run.finished_at > from_now(-LATE)))
    waits = and_(Batch.on_end.is_not(None), Batch.sealed_at < from_now(-LATE), Batch.ended_at.is_(None))
    return _found(connection, select(Batch.id, Batch.sealed_at).where(waits, ~exists().where(needed)))


def untold(connection: Connection) -> list[Finding]:
    """Return what has been in the outbox for long."""
    return _found(connection, select(Outgoing.subject, Outgoing.kind).where(Outgoing.created_at < from_now(-LATE)))


def unserved(connection: Connection) -> list[Finding]:
    """Return queues with due runs that no living worker serves."""
    serving = select(Worker.queues).where(Worker.lease_until > from_now())
    served = {queue for queues in connection.execute(serving).scalars() for queue in queues}
    return [Finding(queue) for queue in claiming.due_queues(connection) if queue not in served]


def unknown_outcomes(connection: Connection) -> list[Finding]:
    """Return, as one finding, how many failed runs nobody can tell the outcome of."""
    unknown = and_(Run.status == Status.FAILED.value, Run.error_code == "unknown_outcome")
    count = connection.execute(select(func.count()).where(unknown)).scalar_one()
    return [Finding("unknown_outcome", f"{count} runs")] if count else []


def recently_ended(connection: Connection, hours: float, after: str = "") -> list[str]:
    """Return runs that ended within so many hours, by id, those behind `after`, up to MOST."""
    recent = select(Run.id).where(ENDED, Run.finished_at > from_now(-hours * 3600), Run.id > after)
    return list(connection.execute(recent.order_by(Run.id).limit(MOST)).scalars())


def last_steps(connection: Connection, run_ids: Collection[str]) -> list[tuple[str, str, str]]:
    """Return (provider's id, its place, run) for the last known step of each attempt at these runs.

    An attempt has all of its steps at one place: that of the thread's conversation when it intended its last one.
    """
    there = (Conversation.thread_id == Run.thread_id, Conversation.created_at <= Attempt.intent_at)
    place = select(Conversation.place).where(*there).order_by(Conversation.created_at.desc()).limit(1)
    tried = select(Attempt.run_id, Attempt.provider_ids, place.scalar_subquery()).where(Attempt.run_id.in_(run_ids))
    rows = connection.execute(tried.join(Run, Run.id == Attempt.run_id))
    return [(chain[-1], place, run_id) for run_id, chain, place in rows if chain and place]


def ended(connection: Connection, run_ids: Collection[str]) -> set[str]:
    """Return those of these runs that have ended."""
    return set(connection.execute(select(Run.id).where(Run.id.in_(run_ids), ENDED)).scalars())


def _runs(told: Any) -> Any:
    return select(Run.id, told)


def _found(connection: Connection, statement: Any) -> list[Finding]:
    return [Finding(str(subject), str(told)) for subject, told in connection.execute(statement.limit(MOST))]
