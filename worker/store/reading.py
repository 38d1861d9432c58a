"""What people and programs see of runs and batches."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from worker.dbtime import from_now
from worker.errors import UnknownRun
from worker.lifecycle import TERMINAL, Status
from worker.models import Assistant, Attempt, EventRow, Message, Run, ToolCall, Worker
from worker.response import HOSTED


@dataclass(frozen=True, slots=True)
class RunView:
    """One run as `runwright show --json` prints it; times are UTC, cost is null where the price is unknown."""

    id: str
    thread_id: str
    assistant: str
    assistant_version: int
    batch_id: str | None
    queue: str
    priority: int
    status: Status
    output_text: str | None
    error: dict[str, str | None] | None
    attempts: int
    max_attempts: int
    tool_calls: list[dict[str, Any]]
    usage: dict[str, int | None]
    cost_usd: float | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    metadata: dict[str, Any]
    provider_ids: list[str]
    unknown_steps: int
    """Steps whose usage nobody knows: their result was found in the conversation, their id never learnt."""

    @property
    def ended(self) -> bool:
        """Tell whether the run has its end."""
        return self.status in TERMINAL

    @property
    def seconds(self) -> float | None:
        """Return the seconds from start to end, None before."""
        return _between(self.started_at, self.finished_at)

    def as_json(self) -> dict[str, Any]:
        """Return what json.dumps takes."""
        return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in asdict(self).items()}


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else (end - start).total_seconds()


def run(connection: Connection, run_id: str) -> RunView:
    """Return one run whole; raises UnknownRun."""
    views = _views(connection, _runs().where(Run.id == run_id))
    if not views:
        raise UnknownRun(run_id)
    return views[0]


def status(connection: Connection, run_id: str) -> Status:
    """Return a run's status; raises UnknownRun."""
    found = connection.execute(select(Run.status).where(Run.id == run_id)).scalar_one_or_none()
    if found is None:
        raise UnknownRun(run_id)
    return Status(found)


def runs(
    connection: Connection,
    *,
    statuses: Sequence[Status] = (),
    batch_id: str | None = None,
    thread_id: str | None = None,
    limit: int = 50,
) -> list[RunView]:
    """Return the newest runs, newest first."""
    statement = _runs().order_by(Run.created_at.desc(), Run.seq.desc()).limit(limit)
    if statuses:
        statement = statement.where(Run.status.in_([status.value for status in statuses]))
    if batch_id:
        statement = statement.where(Run.batch_id == batch_id)
    if thread_id:
        statement = statement.where(Run.thread_id == thread_id)
    return _views(connection, statement)


def by_ids(connection: Connection, ids: Sequence[str]) -> dict[str, RunView]:
    """Return the runs with these ids, by id; at most some hundreds at a time."""
    return {view.id: view for view in _views(connection, _runs().where(Run.id.in_(ids)))}


def _runs() -> Select[Any]:
    columns: tuple[Any, ...] = (Run, Assistant.name.label("assistant"), Assistant.version)
    return select(*columns).join(Assistant, Assistant.id == Run.assistant_id)


def _views(connection: Connection, statement: Select[Any]) -> list[RunView]:
    rows = connection.execute(statement).all()
    ids = [row.id for row in rows]
    calls: dict[str, list[dict[str, Any]]] = {run_id: [] for run_id in ids}
    # In a step the provider's own tools come before the calls that it waits for.
    order = (ToolCall.step, ToolCall.effect != HOSTED, ToolCall.position)
    asked = select(ToolCall).where(ToolCall.run_id.in_(ids)).order_by(*order)
    for call in connection.execute(asked):
        calls[call.run_id].append(_call(call))
    chains: dict[str, list[str]] = {run_id: [] for run_id in ids}
    adopted = dict.fromkeys(ids, 0)
    columns = (Attempt.run_id, Attempt.provider_ids, Attempt.adopted)
    tried = select(*columns).where(Attempt.run_id.in_(ids)).order_by(Attempt.number)
    for run_id, provider_ids, count in connection.execute(tried):
        chains[run_id] += provider_ids
        adopted[run_id] += count
    return [_view(row, calls[row.id], chains[row.id], adopted[row.id]) for row in rows]


def _call(call: Any) -> dict[str, Any]:
    told = {"name": call.name, "arguments": call.arguments, "output": call.output, "status": call.status}
    told |= {"error": call.error, "call_id": call.call_id, "seconds": _between(call.started_at, call.finished_at)}
    asked = {"question": call.question, "decision": call.decision, "decided_by": call.decided_by, "reason": call.reason}
    return told | asked | {"hosted": call.effect == HOSTED}


def _view(row: Any, calls: list[dict[str, Any]], provider_ids: list[str], unknown_steps: int) -> RunView:
    return RunView(
        id=row.id,
        thread_id=row.thread_id,
        assistant=row.assistant,
        assistant_version=row.version,
        batch_id=row.batch_id,
        queue=row.queue,
        priority=row.priority,
        status=Status(row.status),
        output_text=row.output_text,
        error={"code": row.error_code, "message": row.error_message} if row.error_code else None,
        attempts=row.attempt,
        max_attempts=row.max_attempts,
        tool_calls=calls,
        usage={"input_tokens": row.input_tokens, "output_tokens": row.output_tokens},
        cost_usd=row.cost_usd,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        cancel_requested_at=row.cancel_requested_at,
        metadata=row.metadata,
        provider_ids=list(dict.fromkeys(provider_ids)),
        unknown_steps=unknown_steps,
    )


def messages(connection: Connection, thread_id: str) -> list[dict[str, Any]]:
    """Return a thread's messages in order."""
    columns = (Message.run_id, Message.role, Message.content, Message.created_at)
    rows = connection.execute(select(*columns).where(Message.thread_id == thread_id).order_by(Message.id))
    return [dict(row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name of a row as a mapping


def events(connection: Connection, run_id: str) -> list[dict[str, Any]]:
    """Return what happened to a run, in order."""
    columns = (EventRow.at, EventRow.name, EventRow.attempt, EventRow.worker, EventRow.data)
    rows = connection.execute(select(*columns).where(EventRow.run_id == run_id).order_by(EventRow.id))
    return [dict(row._mapping) for row in rows]  # noqa: SLF001 - as above


def refused(connection: Connection, run_id: str) -> list[str]:
    """Say that the provider refuses what a run asks for, where that is the newest of its journal."""
    columns = (EventRow.name, EventRow.at, EventRow.data)
    newest = select(*columns).where(EventRow.run_id == run_id).order_by(EventRow.id.desc()).limit(1)
    row = connection.execute(newest).one_or_none()
    if row is None or row.name != "refused" or row.data["code"] is None:
        return []
    return [
        f"the provider refuses and is asked again: {row.data['code']}, since {row.at:%Y-%m-%d %H:%M:%S} UTC or before"
    ]


def next_look(connection: Connection, run_id: str) -> datetime | None:
    """Return when a run that no worker holds meanwhile is looked at again, None where it does not wait for that."""
    of_attempt = (Attempt.run_id == Run.id) & (Attempt.number == Run.attempt)
    let_go = select(Run.due_at).join(Attempt, of_attempt).where(Run.id == run_id, Run.owner.is_(None))
    # As claiming tells it: else there is nothing at the provider, or it is a fault that is waited out.
    parked = let_go.where(Attempt.provider_id.is_not(None), Attempt.looked_at >= Attempt.intent_at)
    in_time = parked.where(Run.status == Status.IN_PROGRESS.value, Run.due_at > from_now())
    return connection.execute(in_time).scalar_one_or_none()


def news(connection: Connection, run_id: str, after: int) -> list[dict[str, Any]]:
    """Return the rows of a run's journal behind this one, in order."""
    columns = (EventRow.id, EventRow.at, EventRow.name, EventRow.attempt, EventRow.data)
    rows = connection.execute(
        select(*columns).where(EventRow.run_id == run_id, EventRow.id > after).order_by(EventRow.id)
    )
    return [dict(row._mapping) for row in rows]  # noqa: SLF001 - as above


def attempts(connection: Connection, run_id: str) -> list[dict[str, Any]]:
    """Return the attempts at a run, in order, as their rows stand."""
    rows = connection.execute(select(Attempt).where(Attempt.run_id == run_id).order_by(Attempt.number))
    return [dict(row._mapping) for row in rows]  # noqa: SLF001 - as above


def living_workers(connection: Connection) -> list[str]:
    """Return the ids of the workers whose lease holds."""
    return list(connection.execute(select(Worker.id).where(Worker.lease_until > from_now())).scalars())
