"""How long to wait before trying again."""

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from worker.retries import backoff

LOWS = st.floats(0.01, 60)
HIGHS = st.floats(60, 86_400)
FAILURES = st.integers(1, 10_000)
# Hypothesis begins every example with the same luck; the seed gives each its own.
SEEDS = st.integers(0, 2**32)


@given(FAILURES, LOWS, HIGHS, SEEDS)
def test_a_wait_lies_in_the_upper_half_below_its_ceiling(failures: int, low: float, high: float, seed: int) -> None:
    """The ceiling doubles from low with each failure and stops at high, after any number of failures."""
    random.seed(seed)
    ceiling = low
    for _ in range(min(failures, 100) - 1):
        ceiling = min(high, ceiling * 2)
    assert ceiling / 2 <= backoff(failures, low, high) <= ceiling <= high


@given(LOWS, HIGHS)
def test_waits_grow_until_the_ceiling(low: float, high: float) -> None:
    """With the same luck a further failure waits twice as long, until all wait the same."""

    def wait(failures: int) -> float:
        random.seed(7)
        return backoff(failures, low, high)

    waits = [wait(failures) for failures in range(1, 40)]
    assert waits == sorted(waits)
    for before, after in pairwise(waits):
        assert after == min(before * 2, waits[-1])


@given(FAILURES, LOWS, HIGHS, st.floats(0, 1e6), SEEDS)
def test_what_the_provider_told_is_never_undercut(
    failures: int, low: float, high: float, told: float, seed: int
) -> None:
    """Nor is our own pause: the longer of the two counts, with at most a tenth on top of what was told."""
    random.seed(seed)
    wait = backoff(failures, low, high, told)
    assert wait >= told
    assert wait >= min(low, high) / 2
    assert wait <= max(high, told * 1.1)


@given(FAILURES, LOWS, HIGHS)
def test_a_fleet_does_not_come_back_at_once(failures: int, low: float, high: float) -> None:
    """Many who wait for the same reason wait differently, told a time or not."""
    for told in (None, 2 * high):
        assert len({backoff(failures, low, high, told) for _ in range(20)}) > 10


def test_a_ceiling_below_the_first_wait_holds() -> None:
    """Settings may set the longest wait below the shortest: the longest wins."""
    assert 0.5 <= backoff(1, 10, 1) <= 1
