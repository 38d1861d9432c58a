"""Questions to people about tool calls: may this one run (approval), what has that one come to (in_doubt).

A decision is written under the lock of the run's row, which its owner holds for each write as well; a run that is
parked is made due by the last of its decisions.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, exists, func, or_, select, update

from tools.text import storable
from worker.conditions import UNDECIDED
from worker.dbtime import from_now
from worker.errors import UnknownRun, UsageError
from worker.lifecycle import TERMINAL, Status
from worker.models import Assistant, EventRow, Run, ToolCall
from worker.store.held import Hold
from worker.store.journal import record

Kind = Literal["approval", "in_doubt"]

_DENIED = "a person did not allow this call"
_WAITS = {"approval": "waits for approval", "in_doubt": "is in doubt"}
_NAME_LENGTH = 200
_SHORT = 200  # characters of a reason that its event holds as well


@dataclass(frozen=True, slots=True)
class Question:
    """One undecided question; arguments are the model's own text, began_at is when a call in doubt was started."""

    run_id: str
    call_id: str
    tool: str
    arguments: str
    question: Kind
    assistant: str
    thread_id: str
    queue: str
    asked_at: datetime | None
    decide_by: datetime
    began_at: datetime | None


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision that was taken; queue is the one to ring, None where the run goes on by itself or still waits."""

    run_id: str
    call_id: str
    tool: str
    decision: str
    by: str
    queue: str | None


def ask(hold: Hold, call_ids: Sequence[str], question: Kind, seconds: float) -> None:
    """Ask people about these calls of the held run, for so many seconds; raises LostClaim.

    One that was asked this before keeps its time and its decision; what was approved and then interrupted is asked
    anew, as in doubt.
    """
    new = or_(ToolCall.question.is_(None), ToolCall.question != question)
    calls = update(ToolCall).where(ToolCall.run_id == hold.claim.run_id, ToolCall.call_id.in_(call_ids), new)
    open_ones = calls.where(ToolCall.finished_at.is_(None)).values(
        question=question,
        decide_by=from_now(seconds),
        **dict.fromkeys(("decision", "decided_by", "decided_at", "reason")),
    )
    tools = sorted(hold.connection.execute(open_ones.returning(ToolCall.name)).scalars())
    if tools:
        hold.note("asked", question=question, tools=tools)


def pending(connection: Connection, *, question: Kind | None = None, limit: int = 100) -> list[Question]:
    """Return the questions that can still be answered, those that expire first at the front."""
    alive = Run.status.not_in([status.value for status in TERMINAL])
    asked = _asked().where(UNDECIDED, ToolCall.decide_by > from_now())
    asked = asked.where(alive, Run.cancel_requested_at.is_(None))
    if question:
        asked = asked.where(ToolCall.question == question)
    rows = connection.execute(asked.order_by(ToolCall.decide_by, ToolCall.step, ToolCall.position).limit(limit))
    return [Question(*row) for row in rows]


def _asked() -> Select[Any]:
    events = select(func.max(EventRow.at)).where(EventRow.run_id == Run.id, EventRow.name == "asked")
    call = (ToolCall.run_id, ToolCall.call_id, ToolCall.name, ToolCall.arguments, ToolCall.question)
    whose = (Assistant.name.label("assistant"), Run.thread_id, Run.queue)
    when = (events.scalar_subquery(), ToolCall.decide_by, ToolCall.started_at)
    columns: tuple[Any, ...] = (*call, *whose, *when)
    of_run = select(*columns).join(Run, Run.id == ToolCall.run_id)
    return of_run.join(Assistant, Assistant.id == Run.assistant_id)


def approve(connection: Connection, run_id: str, call_id: str | None, *, by: str, reason: str | None = None) -> Decided:
    """Let a call run; without call_id the only one that waits for it. Raises UsageError where that cannot be."""
    return _decide(connection, run_id, call_id, "approval", by=by, decision="approved", reason=reason)


def deny(connection: Connection, run_id: str, call_id: str | None, *, by: str, reason: str | None = None) -> Decided:
    """Keep a call from running; the model reads the reason. Raises UsageError where that cannot be."""
    output = _error("denied", reason or _DENIED)
    ended = _ended("failed", output, "denied")
    return _decide(connection, run_id, call_id, "approval", by=by, decision="denied", reason=reason, **ended)


def answer(
    connection: Connection,
    run_id: str,
    call_id: str | None,
    *,
    by: str,
    output: str | None = None,
    error: str | None = None,
) -> Decided:
    """Say what a call in doubt has come to: its output, or the error that the model reads. Raises UsageError."""
    if (output is None) == (error is None):
        raise UsageError("a call in doubt is answered with its output or with an error, one of them")
    ended = _ended("completed", output) if error is None else _ended("failed", _error("failed", error), "failed")
    return _decide(connection, run_id, call_id, "in_doubt", by=by, decision="answered", **ended)


def _ended(status: str, output: str | None, error: str | None = None) -> dict[str, Any]:
    return {"status": status, "output": storable(output or ""), "error": error, "finished_at": from_now()}


def _error(kind: str, message: str) -> str:
    return json.dumps({"error": {"type": kind, "message": storable(message)}}, ensure_ascii=False)


def _decide(
    connection: Connection,
    run_id: str,
    call_id: str | None,
    kind: Kind,
    *,
    by: str,
    decision: str,
    reason: str | None = None,
    **ended: Any,
) -> Decided:
    by, reason = storable(by).strip(), reason and storable(reason)
    if not 0 < len(by) <= _NAME_LENGTH:
        raise UsageError(f"by: who decides, between 1 and {_NAME_LENGTH} characters")
    run = _hold_open(connection, run_id)
    call = _undecided(connection, run_id, call_id, kind)
    connection.execute(
        update(ToolCall)
        .where(ToolCall.run_id == run_id, ToolCall.call_id == call.call_id)
        .values(decision=decision, decided_by=by, decided_at=from_now(), reason=reason, **ended)
    )
    said = {"reason": reason} if reason and len(reason) <= _SHORT else {}
    record(connection, run_id, decision, attempt=run.attempt, call_id=call.call_id, tool=call.name, by=by, **said)
    return Decided(run_id, call.call_id, call.name, decision, by, _wake(connection, run))


def _hold_open(connection: Connection, run_id: str) -> Row[Any]:
    """Lock the run's row; raises UsageError where it has ended or is about to."""
    columns: tuple[Any, ...] = (
        Run.id,
        Run.status,
        Run.attempt,
        Run.owner,
        Run.turn,
        Run.queue,
        Run.cancel_requested_at,
    )
    run = connection.execute(select(*columns).where(Run.id == run_id).with_for_update()).one_or_none()
    if run is None:
        raise UnknownRun(run_id)
    if run.status in TERMINAL:
        raise UsageError(f"run {run_id} has ended: it is {run.status}, so nothing is asked any more")
    if run.cancel_requested_at is not None:
        raise UsageError(f"run {run_id} is being cancelled, so nothing is asked any more")
    return run


def _undecided(connection: Connection, run_id: str, call_id: str | None, kind: Kind) -> Row[Any]:
    """Return the call that the decision is about; raises UsageError that says why it cannot be taken."""
    columns: tuple[Any, ...] = (ToolCall, (ToolCall.decide_by <= from_now()).label("late"))
    of_run = select(*columns).where(ToolCall.run_id == run_id).order_by(ToolCall.step, ToolCall.position)
    calls = connection.execute(of_run).all()
    named = _only(run_id, calls, kind) if call_id is None else [call for call in calls if call.call_id == call_id]
    if not named:
        raise UsageError(f"run {run_id} has no call " + (repr(call_id) if call_id else f"that {_WAITS[kind]}"))
    call = named[0]
    if refusal := _refusal(call, kind):
        raise UsageError(f"call {call.call_id} ({call.name}) of run {run_id} {refusal}")
    return call


def _only(run_id: str, calls: Sequence[Row[Any]], kind: Kind) -> Sequence[Row[Any]]:
    """Return the one undecided call, or else the last that was asked about; UsageError where there are several."""
    asked = [call for call in calls if call.question == kind]
    waiting = [call for call in asked if _refusal(call, kind) is None]
    if len(waiting) > 1:
        told = ", ".join(f"{call.call_id} ({call.name})" for call in waiting)
        raise UsageError(f"run {run_id} asks about several calls; name one of them: {told}")
    return waiting or asked[-1:]


def _refusal(call: Row[Any], kind: Kind) -> str | None:
    if call.question is None:
        return "asks nothing of people"
    if call.question != kind:
        return f"asks something else: it {_WAITS[call.question]}"
    if call.decision is not None:
        return f"was {call.decision} by {call.decided_by} at {call.decided_at:%Y-%m-%d %H:%M:%S} UTC"
    if call.late or call.finished_at is not None:
        return f"was to be decided by {call.decide_by:%Y-%m-%d %H:%M:%S} UTC; it is too late"
    return None


def _wake(connection: Connection, run: Row[Any]) -> str | None:
    """Make a parked run due once nothing is asked any more; returns its queue then.

    A held run is its owner's, who looks again before it parks; a retry keeps its delay.
    """
    if run.owner is not None or not run.turn or run.status == Status.QUEUED.value:
        return None
    open_ones = exists().where(ToolCall.run_id == run.id, UNDECIDED)
    if connection.execute(select(open_ones)).scalar_one():
        return None
    connection.execute(update(Run).where(Run.id == run.id).values(due_at=from_now()))
    queue: str = run.queue
    return queue
