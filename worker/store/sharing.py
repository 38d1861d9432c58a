"""A worker's part of what is due, where others that serve the same queues have room as well."""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, func, select

from worker.conditions import CLAIMABLE, OWNED
from worker.dbtime import from_now
from worker.models import Run, Worker

_FEW = 16
"""Due runs that are not worth sharing: whoever was rung takes them at once."""

_OTHERS = select(
    Worker.queues,
    Worker.max_in_flight,
    select(func.count()).where(OWNED, Run.owner == Worker.id).correlate(Worker).scalar_subquery().label("held"),
).where(Worker.id != bindparam("worker"), Worker.lease_until > from_now())
_DUE = (
    select(Run.id)
    .where(CLAIMABLE, Run.queue.in_(bindparam("queues", expanding=True)), Run.due_at <= from_now())
    .limit(bindparam("most"))
    .subquery()
)
_COUNT = select(func.count()).select_from(_DUE)


def part(connection: Connection, worker: str, queues: Sequence[str], held: int, limit: int) -> int:
    """Return how many more runs the worker should take, from 0 to `limit`, so that all with room hold as many.

    What is due is counted no further than matters, so a long backlog costs no more than a short one.
    """
    others = [
        other
        for other in connection.execute(_OTHERS, {"worker": worker})
        if other.held < other.max_in_flight and not set(queues).isdisjoint(other.queues)
    ]
    served = {queue for other in others for queue in other.queues}
    mine = [queue for queue in queues if queue not in served]
    if not others or (mine and connection.execute(_COUNT, {"queues": mine, "most": 1}).scalar_one()):
        return limit
    count, all_held = len(others) + 1, held + sum(other.held for other in others)
    matters = count * (held + limit) - all_held
    if matters <= 0:
        return limit
    due = connection.execute(_COUNT, {"queues": list(queues), "most": max(matters, _FEW + 1)}).scalar_one()
    if due <= _FEW:
        return limit
    fair: int = -(-(all_held + due) // count)
    return max(0, min(limit, fair - held))
