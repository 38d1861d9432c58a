"""How long a run stands still when its worker dies: from the kill to the next claim, both by the database's clock."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from tests.nursery import Forked
from worker.dbtime import from_now
from worker.models import EventRow, Run, Worker
from worker.producer import producer


@dataclass(frozen=True, slots=True)
class Bereft:
    """A run that a worker held under this fence directly before it was killed."""

    run_id: str
    fence: int
    at: datetime


def held_by(worker: Forked) -> list[Bereft]:
    """Return what a worker holds now; to be asked directly before the kill."""
    mine = select(Worker.id).where(Worker.pid == worker.pid)
    held = select(Run.id, Run.fence, from_now().label("now")).where(Run.owner.in_(mine))
    with producer().database.read() as connection:
        return [Bereft(*row) for row in connection.execute(held)]


def seconds(bereft: list[Bereft]) -> dict[Bereft, float]:
    """Return how long each waited for its next claim; those that ended before the kill after all have none."""
    claimed: dict[str, list[tuple[int, datetime]]] = defaultdict(list)
    events = select(EventRow.run_id, EventRow.data, EventRow.at).where(EventRow.name == "claimed")
    with producer().database.read() as connection:
        for row in connection.execute(events.order_by(EventRow.id)):
            claimed[row.run_id].append((row.data["fence"], row.at))
    found = {}
    for one in bereft:
        later = [at for fence, at in claimed[one.run_id] if fence > one.fence and at >= one.at]
        if later:
            found[one] = (later[0] - one.at).total_seconds()
    return found
