"""The ledger of tool calls: a finished call never runs again, and an open one is answered before anything else.

Each unit raises LostClaim where the run is no longer its caller's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, bindparam, case, exists, false, func, select, update

from worker.dbtime import from_now
from worker.models import Run, ToolCall
from worker.response import HOSTED, Answer, Asked, HostedCall
from worker.store import many
from worker.store.gathered import NOW
from worker.store.held import Hold

_RUNS_OF_THREADS = select(Run.id).where(Run.thread_id.in_(bindparam("all", expanding=True)))
_CLOSE = update(ToolCall).where(ToolCall.run_id.in_(_RUNS_OF_THREADS), ToolCall.closed == false()).values(closed=True)
_START = (
    update(ToolCall)
    .where(ToolCall.run_id == bindparam("run"), ToolCall.call_id == bindparam("call"))
    .values(status="running", started_at=from_now(), attempt=bindparam("number"), starts=ToolCall.starts + 1)
)


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


def enter(hold: Hold, step: int, calls: Iterable[Asked], effects: Mapping[str, str], *, closed: bool = False) -> None:
    """Enter the calls that the response of a step asked for; what was open before it has been answered by it."""
    close(hold)
    for position, call in enumerate(calls):
        row = {
            "run_id": hold.claim.run_id,
            "call_id": call.call_id,
            "step": step,
            "position": position,
            "attempt": hold.claim.attempt,
            "name": call.name,
            "arguments": call.arguments,
            "effect": effects.get(call.name, "once"),
            "status": "asked",
            "starts": 0,
            "closed": closed,
        }
        hold.writes.insert(ToolCall, row)


def keep_hosted(hold: Hold, step: int, calls: Iterable[HostedCall]) -> None:
    """Keep what the provider's own tools did, closed from the first; what is in the ledger already stays as it is."""
    calls = list(calls)
    for position, call in enumerate(calls):
        row = {
            "run_id": hold.claim.run_id,
            "call_id": call.call_id,
            "step": step if call.step is None else call.step,
            "position": position,
            "attempt": hold.claim.attempt,
            "name": call.name,
            "arguments": call.arguments,
            "output": call.output,
            "effect": HOSTED,
            "status": "failed" if call.error else "completed",
            "error": call.error,
            "starts": 0,
            "closed": True,
        }
        hold.writes.put(_keeping(hold.connection.dialect.name), row)
    if calls:
        hold.note("hosted_calls", tools=[call.name for call in calls], calls=[call.call_id for call in calls])


@cache
def _keeping(dialect: str) -> Any:
    return many.INSERT[dialect](ToolCall).values(finished_at=from_now()).on_conflict_do_nothing()


def close(hold: Hold) -> None:
    """Mark every call of the thread as answered for good: a response that was given their outputs has ended well."""
    hold.writes.each(_CLOSE, hold.claim.thread_id)


def close_without_a_run(connection: Connection, thread_id: str) -> None:
    """Mark every call of a thread as answered for good where its conversation is there no more."""
    connection.execute(_CLOSE, {"all": [thread_id]})


def still_open(connection: Connection, thread_id: str) -> list[OpenCall]:
    """Return the thread's open calls in order: this run's, and what an ended run left behind in the conversation."""
    named = (ToolCall.run_id, ToolCall.call_id, ToolCall.name, ToolCall.arguments)
    overdue = func.coalesce(ToolCall.decide_by <= from_now(), false())
    question = (ToolCall.question, ToolCall.decision, overdue)
    columns: tuple[Any, ...] = (*named, ToolCall.status, ToolCall.output, ToolCall.starts, *question)
    of_thread = select(*columns).join(Run, Run.id == ToolCall.run_id).where(Run.thread_id == thread_id)
    rows = of_thread.where(ToolCall.closed == false()).order_by(Run.seq, ToolCall.step, ToolCall.position)
    return [OpenCall(*row) for row in connection.execute(rows)]


def answered(connection: Connection, run_id: str) -> list[Answer]:
    """Return the run's calls whose outputs a step has been given for good, in order."""
    columns = (ToolCall.call_id, ToolCall.output, ToolCall.name, ToolCall.arguments)
    ours = (ToolCall.run_id == run_id, ToolCall.effect != HOSTED)
    closed = select(*columns).where(*ours, ToolCall.closed, ToolCall.output.is_not(None))
    rows = connection.execute(closed.order_by(ToolCall.step, ToolCall.position))
    return [Answer(row.call_id, row.output or "", row.name, row.arguments) for row in rows]


def began_once(connection: Connection, run_id: str) -> bool:
    """Tell whether a call of the run began that must never run twice: the run cannot start over."""
    begun = exists().where(ToolCall.run_id == run_id, ToolCall.effect == "once", ToolCall.starts > 0)
    return bool(connection.execute(select(begun)).scalar_one())


def start(hold: Hold, call_ids: Sequence[str]) -> set[str]:
    """Say, before they run, which of these calls run: one that has its output stays as it is."""
    run_id, number = hold.claim.run_id, hold.claim.attempt
    begun = {call_id for call_id in call_ids if (run_id, call_id) in hold.group.unfinished}
    for call_id in begun:
        hold.writes.put(_START, {"run": run_id, "call": call_id, "number": number})
    return begun


def finish(hold: Hold, call_id: str, *, status: str, output: str, error: str | None) -> None:
    """Store the output of a call, before it is submitted; the first one stays."""
    if (hold.claim.run_id, call_id) in hold.group.unfinished:
        ended = {"status": status, "output": output, "error": error, "finished_at": NOW}
        hold.writes.update(ToolCall, {"run_id": hold.claim.run_id, "call_id": call_id}, ended)
    hold.note("tool_finished", call_id=call_id, error=error)


def write_off(hold: Hold, call: OpenCall, output: str, error: str) -> None:
    """Store the answer to a call of this thread that will not run any more."""
    row = update(ToolCall).where(ToolCall.run_id == call.run_id, ToolCall.call_id == call.call_id)
    unfinished = row.where(ToolCall.finished_at.is_(None))
    unanswered = ToolCall.question.is_not(None) & ToolCall.decision.is_(None)
    decision = case((unanswered, "expired"), else_=ToolCall.decision)
    ended = {"status": "failed", "output": output, "error": error, "finished_at": from_now(), "decision": decision}
    hold.connection.execute(unfinished.values(**ended))
    hold.note("tool_written_off", call_id=call.call_id, error=error)
