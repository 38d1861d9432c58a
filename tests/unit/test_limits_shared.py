"""The limits in Redis: what the scripts let through, whatever the workers and the order in which they ask."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import fakeredis
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.limits.alone import Alone
from worker.limits.asking import BURST, LEAST_REQUESTS, Ask, Given, Left, Limits
from worker.limits.shared import Shared

T = TypeVar("T")
KEY = "sk-never-shown-0123456789"
EVERY = st.lists(
    st.tuples(st.floats(0, 3), st.integers(0, 3), st.integers(1, 4), st.booleans()), min_size=1, max_size=30
)


class Fleet:
    """Workers that ask one Redis, on a clock that the test turns: the scripts' own call for the time is replaced."""

    def __init__(self, limits: Limits = Limits(), workers: int = 4) -> None:  # noqa: B008 - it cannot be changed
        self.redis = fakeredis.FakeAsyncRedis()
        self.limits = limits
        self.now = 1_000_000.0
        self.workers = [Shared(self.redis, f"w{number}", "server", KEY, "model") for number in range(workers)]
        for shared in self.workers:
            for name in ("_reserve", "_settle", "_refused", "_learn", "_renew"):
                script = getattr(shared, name)
                setattr(shared, name, self._timed(script.script))

    def _timed(self, text: str | bytes) -> Callable[..., Awaitable[Any]]:
        lua = text.decode() if isinstance(text, bytes) else text

        async def call(keys: list[str], args: list[Any]) -> Any:
            seconds, micro = divmod(round(self.now * 1e6), 1_000_000)
            timed = lua.replace("redis.call('TIME')", f"{{{seconds}, {micro}}}")
            return await self.redis.eval(timed, len(keys), *keys, *args)

        return call

    async def ask(self, worker: int, *asks: Ask, left: Left = Left()) -> Given:  # noqa: B008 - it cannot be changed
        return await self.workers[worker].reserve(self.limits, left, asks)


def story(told: Awaitable[T]) -> T:
    """Run to its end what a test does with Redis."""

    async def run() -> T:
        return await told

    return asyncio.run(run())


def asks(count: int, *, tokens: int = 0, bulk: bool = False) -> list[Ask]:
    return [Ask(f"run {number}", tokens, bulk) for number in range(count)]


def busiest(times: list[tuple[float, float]], limit: float, room: float) -> float:
    """Return by how much the costs within any window exceed what the limit and its bucket allow."""
    times = sorted(times)
    worst = 0.0
    for first, (start, _) in enumerate(times):
        total = 0.0
        for at, cost in times[first:]:
            total += cost
            worst = max(worst, total - room - limit / 60 * (at - start))
    return worst


@settings(max_examples=25, deadline=None)
@given(EVERY, st.sampled_from([6, 60, 600, 6000]))
def test_no_window_holds_more_than_the_limit_and_its_burst(moves: list[Any], limit: int) -> None:
    """Expected: whoever asks when and for how many, requests and tokens of each window stay within their limits."""
    tokens = 100 * limit
    fleet = Fleet(Limits(limit, tokens))
    alone, clock = Alone(lambda: fleet.now), list[tuple[float, float]]()
    went: list[tuple[float, float]] = []

    async def play() -> None:
        for pause, worker, count, bulk in moves:
            fleet.now += pause
            wanted = asks(count, tokens=min(100, tokens), bulk=bulk)
            shared = await fleet.ask(worker, *wanted)
            went.extend((fleet.now + delay, 1.0) for delay in shared.delays)
            mine = alone.reserve(fleet.limits, 1, Left(), wanted, 0)
            clock.extend((fleet.now + delay, 1.0) for delay in mine.delays)

    story(play())
    room = max(LEAST_REQUESTS, limit / 60 * BURST)
    assert busiest(went, limit, room) < 0.01
    assert busiest(clock, limit, room) < 0.01
    spent = [(at, 100.0) for at, _ in went]
    assert busiest(spent, tokens, max(100.0, tokens / 60 * BURST)) < 1.0


def test_the_limit_is_used_up_by_those_who_keep_asking() -> None:
    """Expected: four workers that ask again when they are told to get the limit, no less and no more."""
    fleet = Fleet(Limits(requests=600))

    async def ten_seconds() -> int:
        count, due = 0, [fleet.now] * 4
        start = fleet.now
        while min(due) < start + 10:
            worker = due.index(min(due))
            fleet.now = due[worker]
            given = await fleet.ask(worker, *asks(4, bulk=True))
            count += len(given.delays)
            due[worker] += max(given.wait, 0.05)
        return count

    assert 98 <= story(ten_seconds()) <= 105


def test_bulk_leaves_room_for_what_is_urgent() -> None:
    """Expected: where bulk is told to wait, a single run goes at once."""
    fleet = Fleet(Limits(requests=60))

    async def play() -> tuple[Given, Given, Given]:
        bulk = await fleet.ask(0, *asks(9, bulk=True))
        return bulk, await fleet.ask(1, Ask("b", 0, bulk=True)), await fleet.ask(2, Ask("u", 0, bulk=False))

    bulk, more, urgent = story(play())
    assert (len(bulk.delays), more.delays, urgent.delays) == (1, [], [0.0])
    assert more.wait > 0.5


def test_a_refusal_holds_everybody_back_and_slows_them_down() -> None:
    """Expected: nobody goes before Retry-After is over, and a second refusal soon after costs a tenth of the pace."""
    fleet = Fleet(Limits(requests=600))

    async def play() -> tuple[Given, int]:
        await fleet.ask(0)
        await fleet.workers[0].refused(3.0)
        silent = await fleet.ask(1, Ask("a", 0, bulk=False))
        fleet.now += 5
        await fleet.workers[1].refused(0.0)
        count, end = 0, fleet.now + 10
        while fleet.now < end:
            given = await fleet.ask(2, Ask("a", 0, bulk=False))
            count += len(given.delays)
            fleet.now += 0.05
        return silent, count

    silent, count = story(play())
    assert silent.delays == []
    assert 2.7 < silent.wait < 3.0
    assert 85 < count < 99


def test_a_limit_that_one_worker_learns_holds_for_all() -> None:
    """Expected: with nothing set, the provider's word counts; a stricter setting stays stricter."""
    fleet = Fleet()

    async def play() -> tuple[Given, Given, Given]:
        free = await fleet.ask(0, *asks(9))
        await fleet.workers[0].learn(Limits(60, 0))
        bound = await fleet.ask(1, *asks(9))
        fleet.now += 60
        fleet.limits = Limits(requests=6)
        return free, bound, await fleet.ask(2, *asks(9))

    free, bound, strict = story(play())
    assert (len(free.delays), len(bound.delays), bound.limits, bound.workers) == (9, 2, Limits(60), 2)
    assert len(strict.delays) == 2
    assert strict.wait > 9


def test_what_the_provider_says_is_left_is_believed() -> None:
    """Expected: others use the same key; where the provider has nothing left, nothing goes out."""
    fleet = Fleet(Limits(requests=60))
    given = story(fleet.ask(0, Ask("a", 0, bulk=False), left=Left(requests=0)))
    assert given.delays == []
    assert 0.7 < given.wait < 1.0


def test_tokens_that_were_not_used_come_back() -> None:
    """Expected: the next step goes sooner by what the last one did not use, and later by what it used beyond."""
    waits = []
    for unused in (0, 500, -500):
        fleet = Fleet(Limits(tokens=60_000))

        async def play(fleet: Fleet = fleet, unused: int = unused) -> float:
            await fleet.ask(0, Ask("a", 1000, bulk=False))
            await fleet.workers[0].settle("", 0, unused)
            return (await fleet.ask(1, Ask("b", 1000, bulk=False))).wait

        waits.append(round(story(play()), 2))
    assert waits == [0.8, 0.3, 1.3]


def test_places_at_the_provider_are_kept_while_somebody_says_so() -> None:
    """Expected: no more runs than places; a freed place is another's, and so is one of a worker that died."""
    fleet = Fleet(Limits(runs=2))
    taken: list[int] = []

    async def play() -> None:
        taken.append(len((await fleet.ask(0, *asks(3))).delays))
        await fleet.workers[0].settle("run 0", 0, 0)
        taken.append(len((await fleet.ask(1, Ask("x", 0, bulk=False), Ask("y", 0, bulk=False))).delays))
        fleet.now += 20
        await fleet.workers[1].renew(["x"])
        fleet.now += 20
        taken.append(len((await fleet.ask(2, *asks(3))).delays))

    story(play())
    assert taken == [2, 1, 1]


def test_no_secret_is_in_a_name() -> None:
    """Expected: neither the key nor the server's name can be read in Redis, and other keys have other buckets."""
    fleet = Fleet(Limits(60, 60, 1))

    async def play() -> list[Any]:
        await fleet.ask(0, Ask("a", 1, bulk=False))
        return list(await fleet.redis.keys("*"))

    names = b" ".join(story(play())).decode()
    assert names.count("runwright:limits:") == 3
    assert not any(word in names for word in (KEY, "server", "model"))
    assert Shared(fleet.redis, "w", "server", "other", "model")._keys != fleet.workers[0]._keys


def test_a_worker_that_knows_no_limit_hears_of_a_refusal() -> None:
    """Expected: a look without a create tells how long everybody is to wait."""

    async def play() -> Given:
        fleet = Fleet()
        await fleet.workers[0].refused(10.0)
        return await fleet.ask(1)

    assert story(play()).wait > 9
