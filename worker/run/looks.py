"""When to look at a running step: when the delay that one expects to have caused by then is worth a request.

Each assistant's first steps and its later ones are kinds of their own. `python -m benchmarks.looks` compares this with
other ways, and is where the numbers below come from.
"""

import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import NamedTuple, Self

from worker.backends.base import Done, Look, NeedsTools, Pending
from worker.run.lifetable import LifeTable

_KINDS = 256  # 2.4 KB each
_DEAR, _CHEAP, _SOON = 0.035, 0.008, 10.0
_FURTHER = 0.02  # seconds; for less a look is not put off
Kind = tuple[str, bool]
"""The name of an assistant, and whether it is a later step than the first."""


class Factors(NamedTuple):
    """How much dearer looks of one step are than others, and how much longer a pause may, or must be."""

    price: float
    most: float
    least: float = 1.0

    def times(self, other: "Factors") -> "Factors":
        """Return the product."""
        return Factors(self.price * other.price, self.most * other.most, self.least * other.least)

    @classmethod
    def draw(cls) -> Self:
        """Draw those of one pause: runs that began together do not look in step."""
        return cls(random.uniform(0.7, 1.3), random.uniform(0.8, 1.0), random.uniform(1.0, 1.3))


USUAL = Factors(1.0, 1.0)
PATIENT = Factors(price=1000.0, most=10.0, least=1500.0)
"""Where nobody waits for it: seen some half a minute late, looked at every 75 seconds to five minutes."""
_DRAWN = [Factors.draw() for _ in range(1000)]  # thousands that wait share them


class Looks:
    """What one worker has learnt about all kinds of steps, and how many looks it has under way."""

    def __init__(self, least: float, most: float, at_once: int) -> None:
        """Keep pauses between `least` and `most` seconds; `at_once` is how many requests can be open."""
        self._least, self._most = least, most
        self._at_once = at_once
        self._tables: OrderedDict[Kind, LifeTable] = OrderedDict()
        self.under_way = 0
        """Looks that were sent, or that wait for their turn to be."""

    def seed(self, past: Iterable[tuple[Kind, float]]) -> None:
        """Learn from the seconds that steps took which ended before this worker began."""
        for kind, seconds in past:
            table = self.table(kind)
            table.ran(0.0, seconds)
            table.ended(seconds, seconds)

    def table(self, kind: Kind) -> LifeTable:
        """Return what is known of a kind; beyond some hundred kinds the one not asked for the longest is forgotten."""
        if kind not in self._tables:
            self._tables[kind] = LifeTable()
            if len(self._tables) > _KINDS:
                self._tables.popitem(last=False)
        self._tables.move_to_end(kind)
        return self._tables[kind]

    def pause(self, table: LifeTable, age: float, by: Factors) -> float:
        """Return the seconds from the age at which a step was seen until the next look, by what is known now."""
        most = self._most * by.most
        least = max(self._least, min(self._least * by.least, most))
        return max(least, table.pause(age, self._price(age) * by.price, most))

    def _price(self, age: float) -> float:
        """Return the seconds of delay that a look is worth.

        What is scarce is looks a second, and short steps make the most of them: theirs are dearer. Where looks queue
        up for their turn, the price rises with the queue, so that creates do not wait behind thousands of them.
        """
        price = _CHEAP + (_DEAR - _CHEAP) * _SOON / (_SOON + age)
        return price * max(1.0, self.under_way / self._at_once)


class Watch:
    """One step that is waited for, begun at `began` by the monotonic clock, and last looked at when it was `seen`."""

    __slots__ = ("_began", "_by", "_due", "_looks", "_patience", "_ran", "_seen", "_table", "stands")

    def __init__(
        self, looks: Looks, kind: Kind, began: float, *, seen: float | None = None, patience: Factors = USUAL
    ) -> None:
        self._looks, self._table, self._began = looks, looks.table(kind), began
        self._patience = patience
        self._ran = seen or 0.0
        self._see(monotonic() - began if seen is None else seen)
        self._due: float | None = None
        self.stands = False
        """Its look is due, and waits for its turn or is under way."""

    @property
    def seen(self) -> float:
        """When it was last looked at, by the monotonic clock."""
        return self._began + self._seen

    def _see(self, age: float) -> None:
        drawn = random.choice(_DRAWN)
        self._seen, self._by = age, drawn if self._patience is USUAL else drawn.times(self._patience)

    def due(self) -> float | None:
        """Return when the next look is due by the monotonic clock, None for now.

        To be asked again at that time: what was learnt meanwhile may have put the look off. Of a thousand steps that
        began together, of a kind that nobody knew, that saves two looks in five.
        """
        due = self._began + self._seen + self._looks.pause(self._table, self._seen, self._by)
        further = 0.0 if self._due is None else _FURTHER
        self._due = due if due > monotonic() + further else None
        return self._due

    def stand(self) -> None:
        """Count as one that waits for its turn, once."""
        self._looks.under_way += not self.stands
        self.stands = True

    def leave(self) -> None:
        """Count no longer."""
        self._looks.under_way -= self.stands
        self.stands = False

    async def look(self, ask: Callable[[], Awaitable[Look]]) -> Look:
        """Look, and learn from what is seen: it ran when it was asked for, or had ended by the time of the answer."""
        asked = monotonic() - self._began
        self.stand()
        try:
            look = await ask()
        finally:
            self.leave()
            self._see(monotonic() - self._began)
        if isinstance(look, Pending):
            self._table.ran(self._ran, asked)
            self._ran = asked
        elif isinstance(look, Done | NeedsTools):  # a failure says nothing of how long the work takes
            self._table.ended(self._ran, monotonic() - self._began)
        return look
