"""The events of a run: one row for each thing that happened, in the transaction that made it happen."""

from typing import Any

from sqlalchemy import Connection, delete, insert, select

from worker.dbtime import from_now
from worker.models import EventRow, Run

_DAY = 86_400.0
_CHUNK = 1000
_INSERT = insert(EventRow)


def record(
    connection: Connection, run_id: str, name: str, *, attempt: int = 0, worker: str | None = None, **data: Any
) -> None:
    """Append one event; data is JSON and holds no message text."""
    row = {"run_id": run_id, "name": name, "attempt": attempt, "worker": worker, "data": data}
    connection.execute(_INSERT, [row])


def prune(connection: Connection, days: int) -> int:
    """Delete some events of runs that ended more than so many days ago; returns how many."""
    old = select(EventRow.id).join(Run, Run.id == EventRow.run_id).where(Run.finished_at < from_now(-days * _DAY))
    return connection.execute(delete(EventRow).where(EventRow.id.in_(old.limit(_CHUNK).scalar_subquery()))).rowcount
