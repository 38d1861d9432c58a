"""When a worker looks: the bounds, what it learns of each kind of step, and what that comes to in a simulation."""

import asyncio
from functools import partial
from time import monotonic

import pytest

from benchmarks.looks import Learned, even, evenly, late, looks, simulate, skewed, tutorial
from worker.backends.base import Done, Failed, Look, NeedsTools, Pending
from worker.errors import ProviderError
from worker.response import Usage
from worker.run.looks import PATIENT, Factors, Looks, Watch

KIND = ("helper", False)
DONE = Done("an answer", Usage(), None)


def watching(worker: Looks, *seen: Look | Exception, age: float = 100.0) -> None:
    """Wait for a step of this age through these looks."""

    async def ask(look: Look | Exception) -> Look:
        assert worker.under_way == 1
        if isinstance(look, Exception):
            raise look
        return look

    async def story() -> None:
        watch = Watch(worker, KIND, monotonic() - age)
        for look in seen:
            await watch.look(partial(ask, look))

    asyncio.run(story())


@pytest.mark.parametrize("age", [0.0, 0.3, 5.0, 1e7])
def test_a_pause_keeps_within_the_settings(age: float) -> None:
    """Expected: RUNWRIGHT_POLL_MIN and RUNWRIGHT_POLL_MAX bound every pause, also where both are the same."""
    for least, most in ((0.05, 0.3), (3.0, 3.0)):
        worker = Looks(least, most, 64)
        pauses = [worker.pause(worker.table(KIND), age, Factors.draw()) for _ in range(100)]
        assert least <= min(pauses) <= max(pauses) <= most


@pytest.mark.parametrize(("least", "most", "expected"), [(0.05, 30.0, (75.0, 300.0)), (0.05, 0.3, (2.4, 3.0))])
def test_what_nobody_waits_for_is_looked_at_seldom(least: float, most: float, expected: tuple[float, float]) -> None:
    """Expected: every 75 seconds to five minutes, whatever was learnt; in proportion where the settings say less."""
    worker = Looks(least, most, 64)
    worker.seed([(KIND, 1.0 + n / 100) for n in range(100)])
    for age in (0.0, 1.5, 100.0, 20_000.0):
        pauses = [worker.pause(worker.table(KIND), age, Factors.draw().times(PATIENT)) for _ in range(100)]
        assert expected[0] <= min(pauses) <= max(pauses) <= expected[1]


def test_runs_that_began_together_do_not_look_together() -> None:
    """Expected: pauses at one age differ, by chance."""
    worker = Looks(0.05, 30.0, 64)
    assert len({worker.pause(worker.table(KIND), 2.0, Factors.draw()) for _ in range(100)}) > 90


def test_looks_that_queue_up_make_pauses_longer() -> None:
    """Expected: with ten times as many looks under way as requests may be open, the next one waits for longer."""
    worker = Looks(0.05, 30.0, 64)
    table = worker.table(KIND)
    worker.seed([(KIND, 2.0 + n / 100) for n in range(400)])
    alone = max(worker.pause(table, 3.0, Factors.draw()) for _ in range(100))
    worker.under_way = 640
    assert min(worker.pause(table, 3.0, Factors.draw()) for _ in range(100)) > 1.5 * alone


def test_ends_and_what_still_runs_are_learnt() -> None:
    """Expected: a hundred steps that took about 100 s make the next of their kind wait, and no other kind."""
    worker = Looks(0.05, 30.0, 64)
    other = worker.table(("helper", True)).pause(40.0, 0.02, 30)
    for _ in range(100):
        watching(worker, Pending(), DONE)
    assert worker.table(KIND).pause(40.0, 0.02, 30) > 5 * other
    assert worker.table(("helper", True)).pause(40.0, 0.02, 30) == other


@pytest.mark.parametrize(
    "end", [DONE, NeedsTools((), Usage(), None), Failed("x", "y", Usage(), transient=True), ProviderError("x", "y")]
)
def test_a_failure_teaches_nothing_of_how_long_work_takes(end: Look | Exception) -> None:
    """Expected: what ended well is counted as an end, a failure is not; none is counted as under way afterwards."""
    worker = Looks(0.05, 30.0, 64)
    if isinstance(end, Exception):
        with pytest.raises(ProviderError):
            watching(worker, end)
    else:
        watching(worker, end)
    assert worker.under_way == 0
    assert sum(worker.table(KIND)._ended) == (1.0 if isinstance(end, Done | NeedsTools) else 0.0)


def test_the_kinds_kept_are_bounded() -> None:
    """Expected: a thousand assistants leave some hundred tables, that of the one still asked for among them."""
    worker = Looks(0.05, 30.0, 64)
    kept = worker.table(KIND)
    for number in range(1000):
        worker.table((f"assistant {number}", False))
        assert worker.table(KIND) is kept
    assert len(worker._tables) <= 256


# ── the simulation: seeded, the same every time ───────────────────────────────────────────────────────────────────────


def test_a_run_of_five_seconds_costs_at_most_twelve_requests() -> None:
    """Expected: two steps of 2.5 s ± 40 % with 1,000 in flight, two creates, one conversation; seen within 150 ms."""
    steps = simulate(Learned(), even(2.5), [n * 2.5 / 1000 for n in range(3000)])[1500:]
    p50, p99 = late(steps)
    assert 2 * looks(steps) + 3 <= 12
    assert (p50 <= 0.15, p99 <= 1.0) == (True, True)


def test_what_is_learnt_meanwhile_puts_looks_off() -> None:
    """Expected: of a thousand that begin within a second, of a kind that nobody knows, no more looks than of others."""
    steps = simulate(Learned(), even(2.5), [n / 1000 for n in range(1000)])
    p50, p99 = late(steps)
    assert looks(steps) <= 4.5
    assert (p50 <= 0.25, p99 <= 1.0) == (True, True)


def test_a_look_that_is_put_off_is_due_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: when it is due it is asked for anew; a little further is not waited on."""
    worker = Looks(0.05, 30.0, 64)
    watch = Watch(worker, KIND, monotonic())
    pauses = iter([0.2, 0.7, 0.71])
    monkeypatch.setattr(worker, "pause", lambda *_: next(pauses))
    clock = monotonic()
    monkeypatch.setattr("worker.run.looks.monotonic", lambda: clock)
    first = watch.due()
    assert first is not None
    clock = first
    second = watch.due()
    assert second is not None
    assert second - first == pytest.approx(0.5)
    clock = second
    assert watch.due() is None


def test_a_minute_costs_a_fifth_of_the_tutorials_requests() -> None:
    """Expected: at steps of about 60 s (lognormal, σ 0.1), a fifth of the looks of every 0.5 s, and no later p50."""
    starts = evenly(2000, 60)
    ours, theirs = (simulate(way, skewed(60, 0.1), starts)[1000:] for way in (Learned(), tutorial()))
    assert looks(ours) * 5 <= looks(theirs)
    assert late(ours)[0] <= late(theirs)[0]


def test_a_provider_that_answers_at_once_is_not_waited_for() -> None:
    """Expected: after some steps that ended at once the first look comes in a tenth of a second, and is enough."""
    steps = simulate(Learned(), even(0.001), [n * 0.1 for n in range(100)])[50:]
    assert looks(steps) == 1
    assert late(steps)[1] < 0.2
