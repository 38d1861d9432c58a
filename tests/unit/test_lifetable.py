"""What a life table has learnt, and the pauses that follow from it."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.run.lifetable import LifeTable

AGES = st.floats(0, 200_000)
PRICES = st.floats(0.001, 10)
Seen = list[tuple[float, float, bool]]
SEEN: st.SearchStrategy[Seen] = st.lists(st.tuples(AGES, st.floats(0, 1000), st.booleans()), max_size=10)


def taught(*seconds: float) -> LifeTable:
    """Return the table after steps that took so long."""
    table = LifeTable()
    for one in seconds:
        table.ran(0.0, one)
        table.ended(one, one)
    return table


def seeing(seen: Seen) -> LifeTable:
    """Return the table after any looks: since when, how much later, whether it had ended."""
    table = LifeTable()
    for since, more, ended in seen:
        (table.ended if ended else table.ran)(since, since + more)
    return table


@given(SEEN, AGES, PRICES, st.floats(0.01, 100))
def test_a_pause_is_more_than_nothing_and_no_longer_than_asked(
    seen: Seen, age: float, price: float, most: float
) -> None:
    """Expected: whatever was seen, the next look comes, and never at once: the delay grows no faster than the clock."""
    pause = seeing(seen).pause(age, price, most)
    assert math.isfinite(pause)
    assert min(price, most) * 0.999 <= pause <= most * 1.001


@given(SEEN, AGES, PRICES)
def test_a_dearer_look_comes_later(seen: Seen, age: float, price: float) -> None:
    """Expected: pauses grow with the price."""
    table = seeing(seen)
    assert table.pause(age, price, 1e4) <= table.pause(age, price * 2, 1e4) * 1.001


@given(SEEN, st.floats(0, 1e9))
def test_a_table_does_not_grow(seen: Seen, seconds: float) -> None:
    """Expected: it has as many spans after steps of any length as before, and no count above what it remembers."""
    table = seeing(seen)
    spans = len(table._passed)
    table.ran(0.0, seconds)
    table.ended(seconds, seconds * 2)
    assert len(table._passed) == len(table._ended) == spans
    assert max(table._passed) <= 257


def test_the_first_look_comes_when_the_first_steps_end() -> None:
    """Expected: where steps take 50 to 70 s, few looks before that, which are for the rare case, and then many."""
    chance = random.Random(1)
    table = taught(*(chance.uniform(50, 70) for _ in range(500)))
    age, looks = 0.0, []
    while age < 60:
        age += table.pause(age, 0.02, 30)
        looks.append(age)
    assert len([age for age in looks if age < 49]) <= 4
    assert len([age for age in looks if age > 50]) >= 6


def test_nothing_is_looked_for_in_a_gap() -> None:
    """Expected: where steps take about 2 s or about 60 s, one that has taken 4 s is left alone for a while."""
    table = taught(*[2.0, 2.2, 1.9, 60.0, 58.0, 63.0] * 100)
    assert table.pause(4.0, 0.02, 30) > 8
    assert table.pause(1.9, 0.02, 30) < 0.3


def test_what_still_runs_teaches_too() -> None:
    """Expected: of a thousand that began together, ten that ended do not make the others look as if they ended now."""
    table = LifeTable()
    for number in range(1000):
        table.ran(0.0, 2.0)
        if number < 10:
            table.ended(2.0, 2.1)
        else:
            table.ran(2.0, 2.1)
    assert table.pause(2.0, 0.02, 30) > 0.4


def test_the_order_of_ends_does_not_bend_what_is_learnt() -> None:
    """Expected: of a thousand that began together the long ones end last, and the short ones are not forgotten."""
    chance = random.Random(1)
    takes = [chance.uniform(1.5, 3.5) for _ in range(1000)]
    table, before = LifeTable(), 0.0
    for now in [n * 0.25 for n in range(1, 15)]:
        for one in chance.sample(takes, len(takes)):
            if one > now:
                table.ran(before, now)
            elif one > before:
                table.ended(before, now)
        before = now
    assert 1.4 < table.pause(0.0, 0.02, 30) < 2.0


@pytest.mark.parametrize(("before", "after"), [(8.0, 2.0), (2.0, 8.0)])
def test_a_change_is_learnt(before: float, after: float) -> None:
    """Expected: some hundred steps of another length outweigh a thousand of the old one."""
    table = taught(*[before] * 1000, *[after] * 600)
    first = table.pause(0.0, 0.02, 30)
    assert after * 0.6 < first + table.pause(first, 0.02, 30) < after * 1.2


def test_a_clock_that_was_set_back_teaches_nothing_and_harms_nothing() -> None:
    """Expected: an end before its beginning counts as one at once, and a step from the future as one that begins."""
    table = LifeTable()
    table.ended(-0.3, -0.3)
    assert table.pause(-5.0, 0.02, 30) > 0


def test_what_did_not_run_teaches_nothing() -> None:
    """Expected: clocks that disagree by a little leave the table as it was."""
    table, same = taught(2.0, 3.0), taught(2.0, 3.0)
    table.ran(2.5, 2.49)
    assert (table._passed, table._ended) == (same._passed, same._ended)
