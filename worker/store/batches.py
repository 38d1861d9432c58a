"""Batches: documents, each with its own run, and the counts that people watch."""

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, exists, func, insert, select, update

from worker.conditions import UNENDED
from worker.dbtime import from_now
from worker.errors import UsageError
from worker.lifecycle import ACTIVE, Status
from worker.models import COST_DIGITS, Batch, Document, Pause, Run
from worker.store import outbox

_AWAITED = (Batch.on_end.is_not(None), Batch.sealed_at.is_not(None), Batch.ended_at.is_(None))


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """One input of a batch: its run, or the reason why it has none."""

    position: int
    name: str
    characters: int | None
    run_id: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a batch stands; unreadable documents have no run and count as ended."""

    id: str
    assistant: str
    created_at: datetime
    documents: int
    unreadable: int
    statuses: Mapping[str, int]
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    budget_usd: float | None
    held_back: str | None
    """Why no further run of it is begun."""

    @property
    def ended(self) -> int:
        """Count the documents that will not change any more."""
        return self.documents - sum(self.statuses.get(status.value, 0) for status in ACTIVE)

    @property
    def completed(self) -> int:
        """Count the documents with a result."""
        return self.statuses.get(Status.COMPLETED.value, 0)


def create(
    connection: Connection,
    assistant: str,
    prompt: str,
    on_end: Mapping[str, Any] | None = None,
    budget_usd: float | None = None,
) -> str:
    """Insert a batch and return its id; raises UsageError."""
    check_budget(budget_usd)
    batch_id = f"batch_{uuid.uuid4().hex}"
    asked = {"assistant": assistant, "prompt": prompt, "on_end": dict(on_end) if on_end else None}
    connection.execute(insert(Batch).values(id=batch_id, budget_usd=budget_usd, **asked))
    return batch_id


def check_budget(budget_usd: float | None) -> None:
    """Refuse what is no amount of money."""
    if budget_usd is not None and not 0 < budget_usd < math.inf:
        raise UsageError(f"budget {budget_usd:g}: US dollars, more than 0")


def add(connection: Connection, batch_id: str, rows: Sequence[DocumentRow]) -> None:
    """Insert documents; those with a run after their run, in the same transaction."""
    values = [
        {
            "batch_id": batch_id,
            "position": r.position,
            "name": r.name,
            "characters": r.characters,
            "run_id": r.run_id,
            "error": r.error,
        }
        for r in rows
    ]
    connection.execute(insert(Document), values)


def seal(connection: Connection, batch_id: str) -> None:
    """Keep that all documents of a batch are in: only then it can end."""
    connection.execute(update(Batch).where(Batch.id == batch_id).values(sealed_at=from_now()))


def ending(connection: Connection) -> list[str]:
    """Return the batches of which no run is left and whose end is still to be told: one step into an index for each."""
    goes_on = exists().where(Run.batch_id == Batch.id, UNENDED)
    return list(connection.execute(select(Batch.id).where(*_AWAITED, ~goes_on)).scalars())


def end(connection: Connection, batch_id: str) -> bool:
    """Enter the hook of a batch of which no run is left; false where one goes on or the end is told already."""
    row = connection.execute(select(Batch).where(Batch.id == batch_id, *_AWAITED).with_for_update()).one_or_none()
    if row is None:
        return False
    found = _progress(connection, row)
    if ACTIVE & found.statuses.keys():
        return False
    connection.execute(update(Batch).where(Batch.id == batch_id).values(ended_at=from_now()))
    unreadable = {"unreadable": found.unreadable} if found.unreadable else {}
    told = {"id": batch_id, "statuses": {**found.statuses, **unreadable}, "documents": found.documents}
    outbox.put(connection, outbox.BATCH, batch_id, outbox.letter(row.on_end, told))
    return True


def reopened(connection: Connection, batch_id: str) -> None:
    """Let a batch of which a run goes on end once more; its hook is told of that end too."""
    # Also where it has not ended: whoever is about to end it holds this row, and looks for runs that go on after it.
    connection.execute(update(Batch).where(Batch.id == batch_id).values(ended_at=None))


def documents(connection: Connection, batch_id: str) -> list[DocumentRow]:
    """Return a batch's documents in order; raises UsageError for an unknown batch."""
    require(connection, batch_id)
    columns = (Document.position, Document.name, Document.characters, Document.run_id, Document.error)
    rows = select(*columns).where(Document.batch_id == batch_id).order_by(Document.position)
    return [DocumentRow(*row) for row in connection.execute(rows)]


def progress(connection: Connection, batch_id: str) -> Progress:
    """Return where a batch stands; raises UsageError for an unknown batch."""
    return _progress(connection, require(connection, batch_id))


def newest(connection: Connection, limit: int = 20) -> list[Progress]:
    """Return the newest batches, newest first."""
    rows = connection.execute(select(Batch).order_by(Batch.created_at.desc()).limit(limit)).all()
    return [_progress(connection, row) for row in rows]


def require(connection: Connection, batch_id: str) -> Any:
    """Return the row of a batch; raises UsageError that says what to do where there is none."""
    row = connection.execute(select(Batch).where(Batch.id == batch_id)).one_or_none()
    if row is None:
        raise UsageError(f"no batch {batch_id!r}; `runwright batch list` shows the newest")
    return row


def _progress(connection: Connection, row: Any) -> Progress:
    of_batch = Document.batch_id == row.id
    total, unreadable = connection.execute(select(func.count(), func.count(Document.error)).where(of_batch)).one()
    sums = (func.sum(Run.input_tokens), func.sum(Run.output_tokens), func.sum(Run.cost_usd))
    groups = select(Run.status, func.count(), *sums).where(Run.batch_id == row.id).group_by(Run.status)
    statuses, tokens_in, tokens_out, cost = {}, None, None, None
    for status, count, spent_in, spent_out, spent in connection.execute(groups):
        statuses[status] = count
        tokens_in, tokens_out, cost = _plus(tokens_in, spent_in), _plus(tokens_out, spent_out), _plus(cost, spent)
    return Progress(
        id=row.id,
        assistant=row.assistant,
        created_at=row.created_at,
        documents=total,
        unreadable=unreadable,
        statuses=statuses,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        cost_usd=None if cost is None else round(cost, COST_DIGITS),
        budget_usd=row.budget_usd,
        held_back=_held_back(connection, row.id) if statuses.get(Status.QUEUED.value) else None,
    )


def _held_back(connection: Connection, batch_id: str) -> str | None:
    pauses = select(Pause.reason).where(Pause.kind.in_(("budget", "batch")), Pause.name == batch_id)
    found = connection.execute(pauses.order_by(Pause.kind.desc())).first()
    return (found.reason or "it is paused") if found else None


def _plus(total: Any, more: Any) -> Any:
    return total if more is None else more if total is None else total + more
