"""Many runs at once: cancel or retry all that a choice holds, each in a transaction of its own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from worker.errors import UsageError
from worker.lifecycle import ACTIVE, REOPENABLE, Status
from worker.producer import Producer
from worker.store import choosing
from worker.store.choosing import Chosen, Place


class Change(StrEnum):
    """What is asked of each run."""

    CANCEL = "cancel"
    RETRY = "retry"


FAILED = (Status.FAILED, Status.EXPIRED)
"""Ends that nobody asked for and that a further attempt may mend."""

_TAKES = {Change.CANCEL: ACTIVE, Change.RETRY: REOPENABLE}


@dataclass(slots=True)
class Changed:
    """How many runs were changed, and why others were not: what was refused, by run."""

    count: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def choice(change: Change, chosen: Chosen) -> Chosen:
    """Return the choice with the statuses that the change takes; UsageError for one that it does not."""
    takes = _TAKES[change]
    for status in chosen.statuses:
        if status not in takes:
            raise UsageError(f"status {status}: cannot {change} such a run; only {', '.join(sorted(takes))}")
    return replace(chosen, statuses=chosen.statuses or sorted(takes))


def count(producer: Producer, chosen: Chosen) -> int:
    """Count the chosen runs; raises UsageError for an unknown batch or assistant."""
    with producer.database.read() as connection:
        return choosing.count(connection, chosen)


def first(producer: Producer, change: Change, chosen: Chosen, most: int) -> list[Place]:
    """Return the first runs that the change would reach."""
    with producer.database.read() as connection:
        return choosing.page(connection, chosen, None, last_first=_last_first(change), limit=most)


def apply(producer: Producer, change: Change, chosen: Chosen, tell: Callable[[], None] = lambda: None) -> Changed:
    """Cancel or retry every chosen run; `tell` is called after each. What changed meanwhile is refused, not forced."""
    act: Callable[[str], object] = producer.cancel if change is Change.CANCEL else producer.retry
    changed = Changed()
    for place in _places(producer, change, chosen):
        try:
            act(place.run_id)
            changed.count += 1
        except UsageError as error:
            changed.refused[place.run_id] = str(error)
        tell()
    return changed


def _places(producer: Producer, change: Change, chosen: Chosen) -> Iterator[Place]:
    after = None
    while True:
        with producer.database.read() as connection:
            page = choosing.page(connection, chosen, after, last_first=_last_first(change))
        yield from page
        if len(page) < choosing.PAGE:
            return
        after = page[-1]


def _last_first(change: Change) -> bool:
    """A cancel goes up a thread's line, so that no run begins only to be cancelled; a retry keeps the line's order."""
    return change is Change.CANCEL
