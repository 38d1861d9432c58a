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


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds from a kill until somebody noticed it, and from there until the run was claimed again."""

    to_reaped: float
    to_claimed: float

    @property
    def seconds(self) -> float:
        """Return the seconds that the run stood still."""
        return self.to_reaped + self.to_claimed


def of(bereft: list[Bereft]) -> dict[Bereft, Recovery]:
    """Return how long each waited for its next claim; those that ended before the kill after all have none."""
    claimed: dict[str, list[tuple[int, datetime]]] = defaultdict(list)
    reaped: dict[str, list[datetime]] = defaultdict(list)
    events = select(EventRow.run_id, EventRow.name, EventRow.data, EventRow.at)
    with producer().database.read() as connection:
        for row in connection.execute(events.where(EventRow.name.in_(["claimed", "reaped"])).order_by(EventRow.id)):
            if row.name == "claimed":
                claimed[row.run_id].append((row.data["fence"], row.at))
            else:
                reaped[row.run_id].append(row.at)
    found = {}
    for one in bereft:
        later = [at for fence, at in claimed[one.run_id] if fence > one.fence and at >= one.at]
        if later:
            noticed = next((at for at in reaped[one.run_id] if one.at <= at <= later[0]), later[0])
            found[one] = Recovery((noticed - one.at).total_seconds(), (later[0] - noticed).total_seconds())
    return found
