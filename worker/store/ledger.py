"""The ledger of tool calls: a finished call never runs again, and an open one is answered before anything else."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, case, exists, false, func, insert, select, update

from worker.dbtime import from_now
from worker.models import Run, ToolCall
from worker.response import Asked
from worker.store.claiming import Claim
from worker.store.held import hold, note


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call of the thread that the provider has no output for yet; status is asked, running, completed or failed.

    A question is asked of a person (approval, in_doubt); it is overdue when nobody answered in time.
    """

    run_id: str
    call_id: str
    name: str
    arguments: str
    status: str
    output: str | None
    starts: int
    question: str | None = None
    decision: str | None = None
    overdue: bool = False


def enter(connection: Connection, claim: Claim, step: int, calls: Iterable[Asked], effects: Mapping[str, str]) -> None:
    """Enter the calls that the response of a step asked for; what was open before it has been answered by it."""
    close(connection, claim.thread_id)
    rows = [
        {
            "run_id": claim.run_id,
            "call_id": call.call_id,
            "step": step,
            "position": position,
            "attempt": claim.attempt,
            "name": call.name,
            "arguments": call.arguments,
            "effect": effects.get(call.name, "once"),
            "status": "asked",
            "starts": 0,
            "closed": False,
        }
        for position, call in enumerate(calls)
    ]
    connection.execute(insert(ToolCall), rows)


def close(connection: Connection, thread_id: str) -> None:
    """Mark every call of the thread as answered for good: a response that was given their outputs has ended well."""
    runs = select(Run.id).where(Run.thread_id == thread_id)
    open_calls = update(ToolCall).where(ToolCall.run_id.in_(runs), ToolCall.closed == false())
    connection.execute(open_calls.values(closed=True))


def still_open(connection: Connection, thread_id: str) -> list[OpenCall]:
    """Return the thread's open calls in order: this run's, and what an ended run left behind in the conversation."""
    named = (ToolCall.run_id, ToolCall.call_id, ToolCall.name, ToolCall.arguments)
    overdue = func.coalesce(ToolCall.decide_by <= from_now(), false())
    question = (ToolCall.question, ToolCall.decision, overdue)
    columns: tuple[Any, ...] = (*named, ToolCall.status, ToolCall.output, ToolCall.starts, *question)
    of_thread = select(*columns).join(Run, Run.id == ToolCall.run_id).where(Run.thread_id == thread_id)
    rows = of_thread.where(ToolCall.closed == false()).order_by(Run.seq, ToolCall.step, ToolCall.position)
    return [OpenCall(*row) for row in connection.execute(rows)]


def began_once(connection: Connection, run_id: str) -> bool:
    """Tell whether a call of the run began that must never run twice: the run cannot start over."""
    begun = exists().where(ToolCall.run_id == run_id, ToolCall.effect == "once", ToolCall.starts > 0)
    return bool(connection.execute(select(begun)).scalar_one())


def start(connection: Connection, claim: Claim, call_ids: Sequence[str]) -> set[str]:
    """Say, before they run, which of these calls run: one that has its output stays as it is. Raises LostClaim."""
    hold(connection, claim)
    calls = _unfinished(claim).where(ToolCall.call_id.in_(call_ids))
    begun = {"status": "running", "started_at": from_now(), "attempt": claim.attempt, "starts": ToolCall.starts + 1}
    return set(connection.execute(calls.values(**begun).returning(ToolCall.call_id)).scalars())


def finish(connection: Connection, claim: Claim, call_id: str, *, status: str, output: str, error: str | None) -> None:
    """Store the output of a call, before it is submitted; the first one stays. Raises LostClaim."""
    hold(connection, claim)
    call = _unfinished(claim).where(ToolCall.call_id == call_id)
    connection.execute(call.values(status=status, output=output, error=error, finished_at=from_now()))
    note(connection, claim, "tool_finished", call_id=call_id, error=error)


def write_off(connection: Connection, claim: Claim, call: OpenCall, output: str, error: str) -> None:
    """Store the answer to a call of this thread that will not run any more; raises LostClaim."""
    hold(connection, claim)
    row = update(ToolCall).where(ToolCall.run_id == call.run_id, ToolCall.call_id == call.call_id)
    unfinished = row.where(ToolCall.finished_at.is_(None))
    unanswered = ToolCall.question.is_not(None) & ToolCall.decision.is_(None)
    decision = case((unanswered, "expired"), else_=ToolCall.decision)
    ended = {"status": "failed", "output": output, "error": error, "finished_at": from_now(), "decision": decision}
    connection.execute(unfinished.values(**ended))
    note(connection, claim, "tool_written_off", call_id=call.call_id, error=error)


def _unfinished(claim: Claim) -> Any:
    return update(ToolCall).where(ToolCall.run_id == claim.run_id, ToolCall.finished_at.is_(None))
