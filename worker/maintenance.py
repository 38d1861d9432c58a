"""What the scheduler has done now and then: each duty may be done twice, and by any worker."""

from collections.abc import Callable, Iterable

from worker.store import claiming, journal
from worker.store.database import Database


def ring_due(database: Database, ring: Callable[[Iterable[str]], None]) -> list[str]:
    """Ring for every queue that has a due run, in case a doorbell was lost; returns the queues."""
    with database.read() as connection:
        queues = claiming.due_queues(connection)
    ring(queues)
    return queues


def prune_events(database: Database, days: int) -> int:
    """Delete the events of runs that ended more than so many days ago, some at a time; returns how many."""
    deleted = 0
    while True:
        with database.write() as connection:
            count = journal.prune(connection, days)
        if not count:
            return deleted
        deleted += count
