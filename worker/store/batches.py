"""Batches: documents, each with its own run, and the counts that people watch."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select

from worker.errors import UsageError
from worker.lifecycle import ACTIVE, Status
from worker.models import Batch, Document, Run


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

    @property
    def ended(self) -> int:
        """Count the documents that will not change any more."""
        return self.documents - sum(self.statuses.get(status.value, 0) for status in ACTIVE)

    @property
    def completed(self) -> int:
        """Count the documents with a result."""
        return self.statuses.get(Status.COMPLETED.value, 0)


def create(connection: Connection, assistant: str, prompt: str) -> str:
    """Insert a batch and return its id."""
    batch_id = f"batch_{uuid.uuid4().hex}"
    connection.execute(insert(Batch), [{"id": batch_id, "assistant": assistant, "prompt": prompt}])
    return batch_id


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


def documents(connection: Connection, batch_id: str) -> list[DocumentRow]:
    """Return a batch's documents in order; raises UsageError for an unknown batch."""
    _require(connection, batch_id)
    columns = (Document.position, Document.name, Document.characters, Document.run_id, Document.error)
    rows = select(*columns).where(Document.batch_id == batch_id).order_by(Document.position)
    return [DocumentRow(*row) for row in connection.execute(rows)]


def progress(connection: Connection, batch_id: str) -> Progress:
    """Return where a batch stands; raises UsageError for an unknown batch."""
    return _progress(connection, _require(connection, batch_id))


def newest(connection: Connection, limit: int = 20) -> list[Progress]:
    """Return the newest batches, newest first."""
    rows = connection.execute(select(Batch).order_by(Batch.created_at.desc()).limit(limit)).all()
    return [_progress(connection, row) for row in rows]


def run_ids(connection: Connection, batch_id: str, statuses: Sequence[Status]) -> list[str]:
    """Return the batch's runs that are in one of these statuses; raises UsageError for an unknown batch."""
    _require(connection, batch_id)
    wanted = [status.value for status in statuses]
    return list(connection.execute(select(Run.id).where(Run.batch_id == batch_id, Run.status.in_(wanted))).scalars())


def _require(connection: Connection, batch_id: str) -> Any:
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
    return Progress(row.id, row.assistant, row.created_at, total, unreadable, statuses, tokens_in, tokens_out, cost)


def _plus(total: Any, more: Any) -> Any:
    return total if more is None else more if total is None else total + more
