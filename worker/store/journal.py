"""The events of a run: one row for each thing that happened, in the transaction that made it happen."""

from typing import Any

from sqlalchemy import Connection, insert

from worker.models import EventRow

_INSERT = insert(EventRow)


def record(
    connection: Connection, run_id: str, name: str, *, attempt: int = 0, worker: str | None = None, **data: Any
) -> None:
    """Append one event; data is JSON and holds no message text."""
    row = {"run_id": run_id, "name": name, "attempt": attempt, "worker": worker, "data": data}
    connection.execute(_INSERT, [row])
