"""What the scheduler has done now and then: each duty may be done twice, and by any worker."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import structlog

from worker.backends.places import PROTOCOLS, Place
from worker.care.errands import Errand, Outcome, Send, Target
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
    send: Send,
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
        cleaned.conversations = count_conversations(database, settings, days)
        return cleaned
    delete_conversations(database, settings, send, cleaned, days=days, most=most, tell=tell)
    _log.info("cleaned", events=cleaned.events, conversations=cleaned.conversations, failed=dict(cleaned.failed))
    return cleaned


def count_conversations(database: Database, settings: Settings, days: float | None = None) -> int:
    """Count the conversations that `clean` would delete."""
    places = _within_reach(database, settings)
    with database.read() as connection:
        return cleaning.count_conversations(connection, _conversations_days(settings, days), places)


def lacking_keys(database: Database, settings: Settings) -> set[str]:
    """Return the variables of keys without which conversations are left to a worker that has them."""
    return set(filter(None, _places(database, settings).values()))


def _within_reach(database: Database, settings: Settings) -> list[str]:
    return [place for place, lacking in _places(database, settings).items() if lacking is None]


def _places(database: Database, settings: Settings) -> dict[str, str | None]:
    """Return where there are conversations, each place with the variable of its key if that is needed and not set."""
    with database.read() as connection:
        places = map(Place.parse, cleaning.places(connection))
    known = (place for place in places if place.protocol in PROTOCOLS)  # the others are a newer version's
    return {str(place): _lacking(place, settings) for place in known}


def _lacking(place: Place, settings: Settings) -> str | None:
    asked = place.key if place.can.keeps else None
    return asked if asked and settings.key(asked) is None else None


def _conversations_days(settings: Settings, days: float | None) -> float:
    return settings.conversations_days if days is None else days


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
    settings: Settings,
    send: Send,
    cleaned: Cleaned,
    *,
    days: float | None = None,
    most: float = float("inf"),
    tell: Callable[[int], None] = lambda _count: None,
) -> None:
    """Delete the conversations that no run has needed for so many days, `most` at most.

    Those stay whose server needs a key that is not set here. `tell` gets the number of those that were tried.
    """
    days = _conversations_days(settings, days)
    for place in _within_reach(database, settings):
        for outcomes in _deleting(database, place, days, send, lambda: most - cleaned.conversations):
            cleaned.conversations += sum(outcome.error is None for outcome in outcomes)
            cleaned.failed.update(outcome.error.partition(":")[0] for outcome in outcomes if outcome.error)
            tell(len(outcomes))


def _deleting(
    database: Database, place: str, days: float, send: Send, room: Callable[[], float]
) -> Iterator[list[Outcome]]:
    """Delete what is old at one place, page by page, and give what came of each; `room` is for how many more.

    Each is taken from its thread first, under the thread's lock, so that no new run can be using it. A page of which
    nothing could be deleted is the last: the server is away.
    """
    after, size = "", _FIRST
    while (limit := int(min(size, room()))) > 0:
        with database.read() as connection:
            page = cleaning.old_conversations(connection, days, limit, after, place)
        if not page:
            return
        outcomes = _delete(database, [one for one in page if _release(database, one.id, days)], send)
        yield outcomes
        if outcomes and all(outcome.error for outcome in outcomes):
            return
        after, size = page[-1].id, _PAGE


def _delete(database: Database, conversations: Sequence[Target], send: Send) -> list[Outcome]:
    """Delete those of one place where they are: at their server, or here, where we keep them."""
    there = [one for one in conversations if Place.parse(one.place).can.keeps]
    outcomes = list(send(Errand.DELETE, there)) if there else [Outcome(one) for one in conversations]
    gone = [outcome.target.id for outcome in outcomes if outcome.error is None]
    if gone:
        with database.write() as connection:
            cleaning.deleted(connection, gone)
    return outcomes


def _release(database: Database, conversation: str, days: float) -> bool:
    with database.write() as connection:
        return cleaning.release(connection, conversation, days)
