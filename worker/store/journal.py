"""The events of a run: one row for each thing that happened, in the transaction that made it happen."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection

from worker.models import EventRow
from worker.store import many


def record(
    connection: Connection, run_id: str, name: str, *, attempt: int = 0, worker: str | None = None, **data: Any
) -> None:
    """Append one event; data is JSON and holds no message text."""
    record_many(connection, name, [(run_id, attempt, data)], worker)


def record_many(
    connection: Connection, name: str, runs: Iterable[tuple[str, int, dict[str, Any]]], worker: str | None = None
) -> None:
    """Append the same event to many runs, each given with its attempt and data."""
    rows = [{"run_id": run, "name": name, "attempt": n, "worker": worker, "data": data} for run, n, data in runs]
    many.insert(connection, EventRow, rows)
