"""How long steps of one kind take, learnt from those that ended and from those that still run."""

import itertools
import math
import random
from array import array
from math import exp

_PER_DOUBLING = 8
_FIRST = 0.25
"""Spans of ages: up to about this age they are equally wide, later as wide as their age wants it (9 %)."""
_SPANS = _PER_DOUBLING * 18  # up to 18 hours; beyond them nothing is learnt
_KEEP = 256  # each span remembers about so many steps
_DOUBT = 0.3  # as if so many steps of an unknown kind had been seen as well

_EDGES = [_FIRST * (2 ** (n / _PER_DOUBLING) - 1) for n in range(_SPANS + 1)]
_WIDTHS = [high - low for low, high in itertools.pairwise(_EDGES)]
# Of an unknown kind, half of what runs at the age t ends in the next 1 + t seconds.
_UNKNOWN = [_DOUBT * math.log((1 + high) / (1 + low)) for low, high in itertools.pairwise(_EDGES)]


def _span(age: float) -> int:
    return int(_PER_DOUBLING * math.log2(1 + max(0.0, age) / _FIRST))


class LifeTable:
    """For each span of ages: how many steps went through it, and how many ended there; ages in seconds.

    Steps that still run count for the ages they have had: of a thousand that began together the short ones end first,
    and a list of what took how long would hold only those, and later only the long ones.
    """

    def __init__(self) -> None:
        self._passed = array("d", bytes(8 * _SPANS))
        self._ended = array("d", bytes(8 * _SPANS))

    def ran(self, since: float, until: float) -> None:
        """Note that a step ran from one age to another."""
        passed, ended = self._passed, self._ended
        for span in range(_span(since), min(_span(until) + 1, _SPANS)) if since < until else ():
            end = _EDGES[span + 1]
            part = ((min(until, end)) - since) / _WIDTHS[span]
            keep = 1 - part / _KEEP
            passed[span] = passed[span] * keep + part
            ended[span] *= keep
            since = end

    def ended(self, since: float, until: float) -> None:
        """Note that a step ended between two ages; nobody knows when, so any moment will do."""
        age = random.uniform(since, until)
        self.ran(since, age)
        if age < _EDGES[-1]:
            self._ended[_span(age)] += 1

    def pause(self, age: float, price: float, most: float) -> float:
        """Return after how long, `most` at most, the delay to expect of a step that runs now has grown to the price.

        The delay to expect grows by the chance that the step has ended: it is the area below that chance.
        """
        passed, ended = self._passed, self._ended
        now, latest, running = age, age + most, 1.0
        for span in range(_span(age), min(_span(latest) + 1, _SPANS)):
            end = _EDGES[span + 1]
            width = (min(latest, end)) - now
            rate = (ended[span] + _UNKNOWN[span]) / ((passed[span] + _DOUBT) * _WIDTHS[span])
            still = running * exp(-rate * width)
            delay = width * (1 - (running + still) / 2)
            if delay >= price:
                return now - age + _reach(price, 1 - running, (running - still) / width)
            now, running, price = end, still, price - delay
        return most


def _reach(area: float, height: float, slope: float) -> float:
    """Return how far a line that begins at this height and rises so steeply has to go for such an area below it."""
    return 2 * area / (height + math.sqrt(height * height + 2 * slope * area))
