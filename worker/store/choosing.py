"""Choosing runs by what they are, to change many at once: in the order of their threads, a page at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, func, select, tuple_

from worker.dbtime import from_now
from worker.lifecycle import Status
from worker.models import Assistant, Run
from worker.store import assistants, batches

PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which runs: all of what is given must hold; `since` is in seconds, of the end or, before that, of the submit."""

    statuses: Sequence[Status] = ()
    batch_id: str | None = None
    error: str | None = None
    assistant: str | None = None
    queue: str | None = None
    since: float | None = None


class Place(NamedTuple):
    """One of the chosen runs, and where it stands in its thread's line."""

    thread_id: str
    seq: int
    run_id: str
    status: str
    error_code: str | None


def count(connection: Connection, chosen: Chosen) -> int:
    """Count the chosen runs; raises UsageError for an unknown batch or assistant."""
    if chosen.batch_id is not None:
        batches.progress(connection, chosen.batch_id)
    if chosen.assistant is not None:
        assistants.require(connection, chosen.assistant)
    return connection.execute(select(func.count()).select_from(Run).where(*_conditions(chosen))).scalar_one()


def page(
    connection: Connection, chosen: Chosen, after: Place | None, *, last_first: bool, limit: int = PAGE
) -> list[Place]:
    """Return some chosen runs in the order of their threads' lines, or with the last of a line first."""
    place = tuple_(Run.thread_id, Run.seq)
    rows = select(Run.thread_id, Run.seq, Run.id, Run.status, Run.error_code).where(*_conditions(chosen))
    if after is not None:
        here = tuple_(*after[:2])
        rows = rows.where(place < here if last_first else place > here)
    order = (Run.thread_id.desc(), Run.seq.desc()) if last_first else (Run.thread_id, Run.seq)
    return [Place(*row) for row in connection.execute(rows.order_by(*order).limit(limit))]


def _conditions(chosen: Chosen) -> list[ColumnElement[bool]]:
    given: dict[Any, Any] = {
        Run.batch_id: chosen.batch_id,
        Run.error_code: chosen.error,
        Run.queue: chosen.queue,
    }
    conditions: list[ColumnElement[bool]] = [Run.status.in_([status.value for status in chosen.statuses])]
    conditions += [column == value for column, value in given.items() if value is not None]
    if chosen.assistant is not None:
        conditions.append(Run.assistant_id.in_(select(Assistant.id).where(Assistant.name == chosen.assistant)))
    if chosen.since is not None:
        conditions.append(func.coalesce(Run.finished_at, Run.created_at) > from_now(-chosen.since))
    return conditions
