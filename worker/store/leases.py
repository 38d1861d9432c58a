"""The lease of a worker: one row that keeps all its runs, by the database's clock; and what to do when it ends."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from worker.conditions import OWNED
from worker.dbtime import from_now
from worker.errors import LostClaim
from worker.models import Attempt, Run, Worker
from worker.store.journal import record_many
from worker.store.many import chunks


def register(
    connection: Connection,
    worker: str,
    *,
    node: str,
    pid: int,
    queues: Sequence[str],
    room: int,
    lease: float,
    http: str | None = None,
) -> None:
    """Enter this boot of a worker, alive for `lease` seconds of the database's clock. Twice is as good as once.

    `http` is where it answers /healthz and /metrics.
    """
    connection.execute(delete(Worker).where(Worker.id == worker))
    row = {"id": worker, "node": node, "pid": pid, "queues": list(queues), "max_in_flight": room, "http": http}
    connection.execute(insert(Worker).values(**row, lease_until=from_now(lease)))


def renew(connection: Connection, worker: str, lease: float) -> None:
    """Keep the worker alive; raises LostClaim where the reaper has taken its row, and with it its runs.

    A lease that ran out unnoticed is renewed: a database that was away for longer must not cost anybody their runs.
    """
    alive = update(Worker).where(Worker.id == worker)
    if connection.execute(alive.values(lease_until=from_now(lease))).rowcount == 0:
        raise LostClaim(f"the lease of worker {worker} ran out")


def hold(connection: Connection, worker: str) -> None:
    """Lock our lease, alive: the reaper cannot take it between this check and the commit."""
    alive = select(Worker.id).where(Worker.id == worker, Worker.lease_until > from_now())
    if connection.execute(alive.with_for_update(read=True)).scalar_one_or_none() is None:
        raise LostClaim(f"the lease of worker {worker} ran out")


def leave(connection: Connection, worker: str) -> int:
    """Make what the worker still holds due for others and take its row away; returns how many runs."""
    # The row goes first: this waits for a claim under way, whose runs are then among those released.
    connection.execute(delete(Worker).where(Worker.id == worker))
    return _let_go(connection, "released", worker)


def soonest_end(connection: Connection) -> float:
    """Return in how many seconds the first lease runs out if it is not renewed; not above 0 where one has.

    A lease only ever grows, and a new one is a whole one: until then no worker can be dead. It takes no writer's lock.
    """
    first, now = connection.execute(select(func.min(Worker.lease_until), from_now())).one()
    return math.inf if first is None else float((first - now).total_seconds())


def reap(connection: Connection, settled: Callable[[], bool] = lambda: True, lease: float = 0.0) -> int:
    """Make the runs of workers whose lease ran out due; returns how many.

    `settled` is asked once the dead are known: this may have waited for the database while every lease ran out. Who is
    not settled takes those workers alone that did not renew their lease while another one could enter its row.
    """
    dead = select(Worker.id, Worker.lease_until).where(Worker.lease_until <= from_now())
    rows = connection.execute(dead.with_for_update(skip_locked=True)).all()
    if rows and not settled():
        starts = connection.execute(select(Worker.started_at)).scalars().all()
        rows = [row for row in rows if _failed_alone(row.lease_until, starts, lease)]
    workers = [row.id for row in rows]
    if not workers:
        return 0
    count = sum(_let_go(connection, "reaped", worker) for worker in workers)
    connection.execute(delete(Worker).where(Worker.id.in_(workers)))
    return count


def _failed_alone(lease_until: datetime, starts: Iterable[datetime], lease: float) -> bool:
    """Tell whether the database was there while a worker tried to renew its lease, once in a second, and did not.

    It begins to try when a third of its lease is over, and has a moment more than from one try to the next.
    """
    first, last = (lease_until - timedelta(seconds=seconds) for seconds in (lease * 2 / 3 - 1, 1.5))
    return any(first < start < last for start in starts)


def cancels(connection: Connection, worker: str) -> list[str]:
    """Return the runs of this worker that somebody asked to cancel."""
    asked = select(Run.id).where(OWNED, Run.owner == worker, Run.cancel_requested_at.is_not(None))
    return list(connection.execute(asked).scalars())


def owned(connection: Connection, worker: str) -> set[str]:
    """Return the ids of the runs that this worker holds."""
    return set(connection.execute(select(Run.id).where(OWNED, Run.owner == worker)).scalars())


def hand_over(connection: Connection, worker: str, runs: Mapping[str, float | None]) -> int:
    """Let runs of this worker go as they are, many at once: any worker goes on with the same provider runs.

    Where a run's time stood still, the seconds that it has left are given, and make its deadline anew.
    """
    mine = update(Run).where(OWNED, Run.owner == worker)
    for run_id, left in runs.items():
        if left is not None:
            connection.execute(mine.where(Run.id == run_id).values(deadline_at=from_now(left)))
    return _let_go(connection, "handed_over", worker, Run.id.in_(runs))


def release(connection: Connection, worker: str, run_ids: Collection[str]) -> int:
    """Make runs due that this worker holds and nobody drives: the answer to their claim was lost; returns how many."""
    return _let_go(connection, "released", worker, Run.id.in_(run_ids))


def _let_go(connection: Connection, name: str, worker: str, *which: ColumnElement[bool]) -> int:
    """Make runs of a worker due, say why in their journal, and return how many."""
    held = update(Run).where(OWNED, Run.owner == worker, *which)
    gone = connection.execute(held.values(owner=None, due_at=from_now()).returning(Run.id, Run.attempt)).all()
    for some in chunks(gone):  # whoever goes on with them does not come for a look
        parked = Attempt.run_id.in_([run_id for run_id, _ in some]) & Attempt.looked_at.is_not(None)
        connection.execute(update(Attempt).where(parked).values(looked_at=None))
    record_many(connection, name, [(run_id, attempt, {}) for run_id, attempt in gone], worker)
    return len(gone)
