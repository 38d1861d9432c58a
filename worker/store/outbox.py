"""The outbox: what is told outside enters with the change it tells of and leaves when it was sent, at least once."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, insert, null, or_, select, update

from worker.dbtime import from_now
from worker.models import Outgoing, Run

RESULT = "result"
"""To Celery's result backend, read from the run's row when it is sent: the payload is empty."""
RUN = "run"
BATCH = "batch"
"""To the task that its producer asked for: the payload holds the hook and what it is told."""

_FREE = or_(Outgoing.taken_until.is_(None), Outgoing.taken_until <= from_now())


@dataclass(frozen=True, slots=True)
class Letter:
    """One thing to send; `subject` is the id of the run or the batch."""

    id: int
    kind: str
    subject: str
    payload: Mapping[str, Any]
    created_at: datetime


def run_ended(connection: Connection, run_id: str) -> None:
    """Enter what is to be told of the end of a run that nobody held; call it after its status is written."""
    whose = (Run.id.label("run_id"), Run.thread_id, Run.batch_id, Run.on_end, Run.store_result)
    run = connection.execute(select(*whose, Run.status, Run.error_code).where(Run.id == run_id)).one()
    for row in letters(run, run.status, run.error_code):
        connection.execute(insert(Outgoing), [row])


def letters(run: Any, status: str, error_code: str | None) -> Iterator[dict[str, Any]]:
    """Yield the rows that tell of an end; the hook is told this one, whatever becomes of the run before it is sent.

    `run` is its claim, or a row with a claim's names.
    """
    if run.store_result:
        yield {"kind": RESULT, "subject": run.run_id, "payload": {}}
    if run.on_end:
        told = {"id": run.run_id, "thread_id": run.thread_id, "batch_id": run.batch_id}
        ended = {**told, "status": status, "error_code": error_code}
        yield {"kind": RUN, "subject": run.run_id, "payload": letter(run.on_end, ended)}


def letter(hook: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload that sends a hook with what it is told."""
    return {"hook": dict(hook), "told": dict(told)}


def put(connection: Connection, kind: str, subject: str, payload: Mapping[str, Any]) -> None:
    """Enter one row."""
    connection.execute(insert(Outgoing), [{"kind": kind, "subject": subject, "payload": dict(payload)}])


def waiting(connection: Connection) -> bool:
    """Tell whether there is something that nobody is sending."""
    return bool(connection.execute(select(exists().where(_FREE))).scalar_one())


def take(connection: Connection, seconds: float, limit: int) -> list[Letter]:
    """Take the oldest rows that nobody is sending; after so many seconds they are anybody's again."""
    free = select(Outgoing.id).where(_FREE).order_by(Outgoing.id).limit(limit).with_for_update(skip_locked=True)
    picked = free.cte("picked").prefix_with("MATERIALIZED")
    taken = (
        update(Outgoing)
        .where(Outgoing.id.in_(select(picked.c.id)))
        .values(taken_until=from_now(seconds))
        .returning(Outgoing.id, Outgoing.kind, Outgoing.subject, Outgoing.payload, Outgoing.created_at)
    )
    return sorted((Letter(*row) for row in connection.execute(taken)), key=lambda letter: letter.id)


def sent(connection: Connection, ids: Collection[int]) -> None:
    """Delete what was sent."""
    connection.execute(delete(Outgoing).where(Outgoing.id.in_(ids)))


def give_back(connection: Connection, ids: Collection[int]) -> None:
    """Let anybody send these rows at once."""
    connection.execute(update(Outgoing).where(Outgoing.id.in_(ids)).values(taken_until=null()))


def ends(connection: Connection, run_ids: Collection[str]) -> Sequence[Row[Any]]:
    """Return what the result backend is told of these runs; one that was reopened meanwhile has no end."""
    columns: tuple[Any, ...] = (Run.id, Run.thread_id, Run.status, Run.output_text, Run.error_code, Run.error_message)
    return connection.execute(select(*columns).where(Run.id.in_(run_ids), Run.finished_at.is_not(None))).all()
