"""What the scheduler has done now and then: each duty may be done twice, and by any worker."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from worker.backends.places import PROTOCOLS, Place
from worker.errands import Errand, Outcome, Send, Target
from worker.settings import Settings
from worker.store import claiming, cleaning
from worker.store.database import Database

_log = structlog.get_logger(__name__)
# A provider that hangs is found out with a handful of requests.
_FIRST, _PAGE = 16, 250


@dataclass(slots=True)
class Cleaned:
    """What a cleanup deleted, or would; `failed` counts by error what the next one tries again."""

    events: int = 0
    conversations: int = 0
    failed: Counter[str] = field(default_factory=Counter)


def ring_due(database: Database, ring: Callable[[Iterable[str]], None]) -> list[str]:
    """Ring for every queue that has a due run, in case a doorbell was lost; returns the queues."""
    with database.read() as connection:
        queues = claiming.due_queues(connection)
    ring(queues)
    return queues


def clean(
    database: Database,
    settings: Settings,
    send: Send | None,
    *,
    days: float | None = None,
    dry_run: bool = False,
    most: float = float("inf"),
    tell: Callable[[int], None] = lambda _count: None,
) -> Cleaned:
    """Delete what is older than `days` or, without them, than the settings say, and log what it was.

    A dry run counts both and deletes nothing. `send`, `most` and `tell` are those of delete_conversations.
    """
    cleaned = Cleaned(prune_events(database, settings.events_days if days is None else days, dry_run=dry_run))
    if dry_run:
        cleaned.conversations = count_conversations(database, settings, send, days)
        return cleaned
    delete_conversations(database, _conversations_days(settings, days), send, cleaned, most=most, tell=tell)
    _log.info("cleaned", events=cleaned.events, conversations=cleaned.conversations, failed=dict(cleaned.failed))
    return cleaned


def count_conversations(database: Database, settings: Settings, send: Send | None, days: float | None = None) -> int:
    """Count the conversations that `clean` would delete."""
    with database.read() as connection:
        return cleaning.count_conversations(connection, _conversations_days(settings, days), _within_reach(send))


def _conversations_days(settings: Settings, days: float | None) -> float:
    return settings.conversations_days if days is None else days


def _within_reach(send: Send | None) -> Collection[str]:
    """Return the protocols whose conversations can be deleted: without a way to any provider those that we keep."""
    return [name for name, can in PROTOCOLS.items() if send or not can.keeps]


def prune_events(database: Database, days: float, *, dry_run: bool = False) -> int:
    """Delete the events of runs that ended more than so many days ago, some at a time; returns how many."""
    count, after = 0, 0
    while True:
        with database.read() if dry_run else database.write() as connection:
            page = cleaning.old_events(connection, days, after)
            count += len(page.ids) if dry_run else cleaning.delete_events(connection, page.ids)
        if page.last is None:
            return count
        after = page.last


def delete_conversations(
    database: Database,
    days: float,
    send: Send | None,
    cleaned: Cleaned,
    *,
    most: float = float("inf"),
    tell: Callable[[int], None] = lambda _count: None,
) -> None:
    """Delete the conversations that no run has needed for so many days, `most` at most.

    Without a way to the provider those go that we keep ourselves. Each is taken from its thread first, under the
    thread's lock, so that no new run can be using it. A page of which nothing could be deleted ends it: the provider is
    away. `tell` gets the number of those that were tried.
    """
    after, size = "", _FIRST
    while cleaned.conversations < most:
        with database.read() as connection:
            limit = int(min(size, most - cleaned.conversations))
            page = cleaning.old_conversations(connection, days, limit, after, _within_reach(send))
        if not page:
            return
        outcomes = _delete(database, [one for one in page if _release(database, one.id, days)], send)
        gone = sum(outcome.error is None for outcome in outcomes)
        cleaned.conversations += gone
        cleaned.failed.update(outcome.error.partition(":")[0] for outcome in outcomes if outcome.error)
        after, size = page[-1].id, _PAGE
        tell(len(page))
        if outcomes and not gone:
            return


def _delete(database: Database, conversations: Sequence[Target], send: Send | None) -> list[Outcome]:
    """Delete them where they are: at their provider, and those that we keep, here."""
    outcomes = [Outcome(one) for one in conversations if not _is_there(one)]
    if send and (there := [one for one in conversations if _is_there(one)]):
        outcomes += send(Errand.DELETE, there)
    gone = [outcome.target.id for outcome in outcomes if outcome.error is None]
    if gone:
        with database.write() as connection:
            cleaning.deleted(connection, gone)
    return outcomes


def _is_there(conversation: Target) -> bool:
    return Place.parse(conversation.place).can.keeps


def _release(database: Database, conversation: str, days: float) -> bool:
    with database.write() as connection:
        return cleaning.release(connection, conversation, days)
