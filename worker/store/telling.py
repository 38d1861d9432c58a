"""Ends that somebody outside waits for, kept until they are told: a crash in between loses none."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, false, select, update

from worker.models import UNTOLD, Run

_CHUNK = 100


def untold(connection: Connection) -> Sequence[Row[Any]]:
    """Return ended runs whose end Celery's result backend has not been told, the oldest first, some at a time."""
    columns: tuple[Any, ...] = (Run.id, Run.thread_id, Run.status, Run.output_text, Run.error_code, Run.error_message)
    return connection.execute(select(*columns).where(UNTOLD).order_by(Run.finished_at).limit(_CHUNK)).all()


def told(connection: Connection, run_ids: Sequence[str]) -> None:
    """Keep that these ends have been told."""
    connection.execute(update(Run).where(Run.id.in_(run_ids)).values(store_result=false()))
