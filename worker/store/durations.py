"""How long steps took at the provider, as the events of their runs tell."""

from datetime import datetime

from sqlalchemy import Connection, func, select

from worker.lifecycle import Status
from worker.models import Assistant, EventRow, Run

_EVENTS = 10_000  # some tenths of a second to read, when a worker starts
_ENDS = ("requires_action", Status.COMPLETED.value, Status.INCOMPLETE.value)


def newest(connection: Connection) -> list[tuple[tuple[str, bool], float]]:
    """Return seconds by (assistant, whether it is a later step than the first) for the newest steps that ended well.

    They are found by the number of their events, so that a long past costs nothing. The seconds run from one commit to
    the other and are somewhat longer than what the step took: until its end was seen.
    """
    first_id = (connection.execute(select(func.max(EventRow.id))).scalar_one() or 0) - _EVENTS
    columns = (EventRow.run_id, EventRow.attempt, EventRow.name, EventRow.at, EventRow.data["step"].as_integer())
    named = select(*columns, Assistant.name).join(Run, Run.id == EventRow.run_id).join(Assistant)
    told = named.where(EventRow.id > first_id, EventRow.name.in_(("created", *_ENDS))).order_by(EventRow.id)
    begun: dict[tuple[str, int], tuple[datetime, bool]] = {}
    found = []
    for run_id, attempt, name, at, step, assistant in connection.execute(told):
        if name == "created":
            begun[run_id, attempt] = at, bool(step)
        elif (run_id, attempt) in begun:
            since, later = begun.pop((run_id, attempt))
            found.append(((assistant, later), (at - since).total_seconds()))
    return found
