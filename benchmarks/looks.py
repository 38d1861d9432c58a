"""`python -m benchmarks.looks`: how many looks a step costs and how late its end is seen, by ways to choose the pauses.

A simulation: no server, no clock, the same every time. It decided the numbers in worker/run/looks.py and lifetable.py.
"""

import heapq
import itertools
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, quantiles
from typing import Protocol

from rich.console import Console
from rich.table import Table

from worker.run.looks import Factors, Looks

ANSWER = 0.02
"""Seconds that a look takes when nothing holds it up, half to one and a half times."""
_EVEN = Factors(1.0, 1.0)
_FURTHER = 0.02
"""Seconds; for less a look that is due is not put off."""
Takes = Callable[[random.Random, float], float]
"""Draws the seconds that a step takes; its number says how far the measurement has come, from 0 to 1."""


class Way(Protocol):
    """One way to choose the pauses."""

    def pause(self, step: "Step", age: float) -> float:
        """Return the seconds until the next look at a step that was seen at this age; asked again when it is due."""
        ...

    def asked(self) -> None:
        """Hear that a look begins."""
        ...

    def answered(self, ran: float, until: float, *, ended: bool) -> None:
        """Hear its answer: what ran at the first age runs at the second one, or ended in between."""
        ...


class Fixed:
    """Counts, and learns nothing."""

    def __init__(self, pause: Callable[[int, float], float]) -> None:
        self._pause = pause

    def pause(self, step: "Step", age: float) -> float:
        """Return what the number of looks gives, and the chance of this pause."""
        return self._pause(step.looks, step.chance.most)

    def asked(self) -> None:
        """Do nothing."""

    def answered(self, ran: float, until: float, *, ended: bool) -> None:
        """Do nothing."""


class Learned:
    """What the worker does, with its own code."""

    def __init__(self, least: float = 0.05, most: float = 30.0, at_once: int = 64) -> None:
        self._looks = Looks(least, most, at_once)
        self._table = self._looks.table(("simulated", False))
        self.queue = 0
        """The most looks under way at once."""

    def pause(self, step: "Step", age: float) -> float:
        """Return what the table of this kind gives."""
        return self._looks.pause(self._table, age, step.chance)

    def asked(self) -> None:
        """Count it."""
        self._looks.under_way += 1
        self.queue = max(self.queue, self._looks.under_way)

    def answered(self, ran: float, until: float, *, ended: bool) -> None:
        """Learn."""
        self._looks.under_way -= 1
        (self._table.ended if ended else self._table.ran)(ran, until)


def tutorial() -> Way:
    """Look every half second."""
    return Fixed(lambda _looks, _chance: 0.5)


def doubling() -> Way:
    """Look after 0.5, 1, 2, … 10 seconds, up to a fifth less: what the worker did before it learnt."""
    return Fixed(lambda looks, chance: min(0.5 * 2.0**looks, 10.0) * chance)


@dataclass(slots=True)
class Step:
    """One step on its way; ages are seconds since `start`."""

    start: float
    takes: float
    looks: int = 0
    ran: float = 0.0
    asked: float = 0.0
    seen: float = 0.0
    late: float = 0.0
    chance: Factors = _EVEN


def simulate(way: Way, takes: Takes, starts: Sequence[float], *, seed: int = 1, each: float = 0.0) -> list[Step]:
    """Return the steps with what they came to; a look takes `each` seconds of the one core that all share."""
    chance, order, free_at = random.Random(seed), itertools.count(), 0.0
    random.seed(seed)  # for what the ways draw
    steps = [Step(start, takes(chance, n / len(starts))) for n, start in enumerate(starts)]
    agenda = [(step.start, next(order), False, step) for step in steps]
    heapq.heapify(agenda)
    while agenda:
        now, _, asks, step = heapq.heappop(agenda)
        age = now - step.start
        if asks and (due := step.seen + way.pause(step, step.seen)) > age + _FURTHER:
            heapq.heappush(agenda, (step.start + due, next(order), True, step))
            continue
        if asks:
            way.asked()
            step.looks, step.asked, free_at = step.looks + 1, age, max(now, free_at) + each
            heapq.heappush(agenda, (free_at + ANSWER * chance.uniform(0.5, 1.5), next(order), False, step))
            continue
        if step.looks:
            step.late = age - step.takes
            ended = age - ANSWER / 2 >= step.takes
            way.answered(step.ran, age if ended else step.asked, ended=ended)
            if ended:
                continue
            step.ran = step.asked
        step.seen, step.chance = age, Factors.draw()
        heapq.heappush(agenda, (now + way.pause(step, age), next(order), True, step))
    return steps


# ── what is drawn ─────────────────────────────────────────────────────────────────────────────────────────────────


def even(seconds: float, part: float = 0.4) -> Takes:
    """Every duration within so much of `seconds` alike."""
    return lambda chance, _done: seconds * chance.uniform(1 - part, 1 + part)


def skewed(seconds: float, sigma: float) -> Takes:
    """A lognormal around `seconds`, with its long tail."""
    return lambda chance, _done: seconds * chance.lognormvariate(0, sigma)


def either(one: float, other: float) -> Takes:
    """About one of two durations, the first seven times in ten."""
    return lambda chance, _done: (one if chance.random() < 0.7 else other) * chance.uniform(0.8, 1.2)


def drifting(first: float, last: float) -> Takes:
    """Slowly from one duration to another."""
    return lambda chance, done: (first + (last - first) * done) * chance.uniform(0.8, 1.2)


KINDS: list[tuple[str, float, Takes]] = [
    ("at once", 2, even(0.002)),
    ("2.5 s ± 40 %", 2.5, even(2.5)),
    ("2.5 s, lognormal σ 0.5", 2.5, skewed(2.5, 0.5)),
    ("2 s or 20 s", 8, either(2, 20)),
    ("drifting from 2 s to 8 s", 5, drifting(2, 8)),
    ("drifting from 8 s to 2 s", 5, drifting(8, 2)),
    ("60 s exactly", 60, even(60, 0.0)),
    ("60 s ± 20 %", 60, even(60, 0.2)),
    ("60 s, lognormal σ 0.1", 60, skewed(60, 0.1)),
    ("60 s ± 40 %", 60, even(60)),
    ("60 s, lognormal σ 0.5", 60, skewed(60, 0.5)),
    ("600 s ± 40 %", 600, even(600)),
]


def evenly(count: int, seconds: float) -> list[float]:
    """Return the starts of steps of which about four hundred run at any time."""
    return [n * seconds / 400 for n in range(count)]


def rows(count: int) -> list[tuple[str, str, list[Step]]]:
    """Return kind, way and the second half of the steps, all of them where it begins without knowing anything."""
    found = []
    for name, seconds, takes in KINDS:
        starts = evenly(2 * count, seconds)
        for way, make in (("every 0.5 s", tutorial), ("doubling", doubling), ("learnt", Learned)):
            found.append((name, way, simulate(make(), takes, starts)[count:]))
        together = [n / 1000 for n in range(count)]  # as fast as a worker begins them
        found.append((name, "learning, all begin together", simulate(Learned(), takes, together)))
    return found


def crowds(count: int) -> list[tuple[str, str, list[Step]]]:
    """Return the same for so many in flight on one worker, whose looks cost 0.3 ms of its core each."""
    found = []
    for seconds in (5.0, 60.0):
        starts = [n * seconds / count for n in range(2 * count)]
        for name, at_once in (("learnt", 64), ("learnt, any queue", 10**9)):
            way = Learned(at_once=at_once)
            steps = simulate(way, even(seconds), starts, each=0.0003)[count:]
            found.append((f"{count:,} at once, {seconds:g} s ± 40 %", f"{name}: ≤ {way.queue:,} wait", steps))
    return found


def late(steps: Sequence[Step]) -> tuple[float, float]:
    """Return the median and the 99th percentile of the delay until an end is seen, in seconds."""
    cuts = quantiles((step.late for step in steps), n=100)
    return cuts[49], cuts[98]


def looks(steps: Sequence[Step]) -> float:
    """Return the mean number of looks."""
    return fmean(step.looks for step in steps)


def main(count: int) -> None:
    """Print the table."""
    table = Table("a step takes", "looks", "looks a step", "late p50 s", "p99 s", title=f"{count} steps each")
    for name, way, steps in [*rows(count), *crowds(10 * count)]:
        table.add_row(name, way, f"{looks(steps):.1f}", *(f"{seconds:.2f}" for seconds in late(steps)))
    Console(width=110).print(table)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1000)
