"""The gates of one worker: who goes first, what costs nothing, and what happens without Redis."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import fakeredis
import pytest
from redis.exceptions import ConnectionError as RedisAway

from tests.conformance.ground import Ground
from tests.driving import drive_on
from tests.scripted import step
from tests.workbench import Provider, parts
from worker.backends.base import Created, Done, Failed, Step
from worker.errors import ProviderError
from worker.lifecycle import Status
from worker.limits import link
from worker.limits.asking import Limits
from worker.limits.gates import Admission, Gates
from worker.parts import Parts
from worker.response import Usage
from worker.run.pace import Held
from worker.store import assistants
from worker.store.claiming import Claim

HEADERS = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59"}
THROTTLED = ProviderError("rate_limit_exceeded", "slow down", transient=True, retry_after=30.0, status=429)
MODEL = {"model": "gpt-4o-mini"}


class Counting(fakeredis.FakeAsyncRedis):
    """Counts what it is asked; `away` raises or hangs instead."""

    asked = 0
    away: Callable[[], Awaitable[Any]] | None = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        self.asked += 1
        if self.away:
            return await self.away()
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # it has none


@pytest.fixture
def ground(sqlite_url: str) -> Iterator[Ground]:
    """Give a database with an assistant and a worker."""
    ground = Ground(sqlite_url)
    ground.assistant_id = ground.write(assistants.apply, "plain", MODEL)[0].id
    ground.boot("w1")
    yield ground
    ground.close()


@pytest.fixture
def claim(ground: Ground) -> Claim:
    """Give a run that is held."""
    ground.submit()
    return ground.take("w1")


def gates(redis: Any, *limits: int, told: list[tuple[str, Any]] | None = None) -> Gates:
    """Return the gates of one worker; `told` gets its events."""

    def emit(name: str, **fields: Any) -> None:
        if told is not None:
            told.append((name, fields))

    return Gates(redis, Limits(*limits), whose=lambda _: ("s", "k"), emit=emit)


async def passes(gate: Gates, claim: Claim, seconds: float = 0.3, **changes: Any) -> Admission | None:
    """Return the admission of a step, None where it has to wait for longer."""
    asked = replace(claim, **changes)
    try:
        async with asyncio.timeout(seconds):
            return gate.at_once(step(), asked) or await gate.admit(step(), asked)
    except TimeoutError:
        return None


def test_without_a_limit_nothing_is_asked(claim: Claim) -> None:
    """Expected: a hundred creates cost one look at Redis, not one each, and the same headers are told once."""

    async def story() -> tuple[int, int]:
        redis = Counting()
        gate = gates(redis)
        for _ in range(100):
            admitted = gate.at_once(step(), claim)
            assert admitted is not None
            with admitted:
                admitted.goes_out()
                admitted.taken(Created("r"))
                admitted.ended(Done("", Usage(1, 1), None))
        await asyncio.gather(*gate._link._tasks)
        looked, redis.asked = redis.asked, 0
        for _ in range(100):
            gate.resumed(claim).taken(Created("r", headers=HEADERS))
        await asyncio.gather(*gate._link._tasks)
        await gate.close()
        return looked, redis.asked

    looked, learnt = asyncio.run(story())
    assert looked <= 3
    assert learnt <= 3


def test_the_first_create_goes_alone(claim: Claim) -> None:
    """Expected: of a thousand at once one goes out, and its answer's limit holds for the others; or there is none."""

    async def story(headers: dict[str, str]) -> int:
        gate = gates(Counting())
        first = gate.at_once(step(), claim)
        assert first is not None
        waiting = [asyncio.create_task(passes(gate, claim, 1.0, run_id=str(number))) for number in range(50)]
        await asyncio.sleep(0)
        with first:
            first.taken(Created("r", headers=headers))
        count = sum(one is not None for one in await asyncio.gather(*waiting))
        await gate.close()
        return count

    assert asyncio.run(story(HEADERS)) <= 4
    assert asyncio.run(story({"x-ratelimit-limit-tokens": "600"})) <= 4
    assert asyncio.run(story({})) == 50


@pytest.mark.parametrize("rounds", range(4))
def test_who_goes_away_as_the_first_answer_comes_is_gone(claim: Claim, rounds: int) -> None:
    """Expected: a run that is told something in the very moment does not wait for limits that the answer tells of."""

    async def story() -> bool:
        gate = gates(fakeredis.FakeAsyncRedis())
        first = gate.at_once(step(), claim)
        assert first is not None
        waiting = asyncio.create_task(gate.admit(step(), replace(claim, run_id="another")))
        await asyncio.sleep(0.01)
        with first:
            first.failed(THROTTLED)
        for _ in range(rounds):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting}, timeout=10)
        await gate.close()
        return waiting.cancelled()

    assert asyncio.run(story())


def test_what_one_worker_learns_another_keeps_to(claim: Claim) -> None:
    """Expected: the second worker was never answered, and waits all the same; both say what they learnt."""
    told: list[tuple[str, Any]] = []

    async def story() -> list[bool]:
        redis = Counting()
        first, second = gates(redis), gates(redis, told=told)
        first.resumed(claim).taken(Created("r", headers=HEADERS))
        await asyncio.gather(*first._link._tasks)
        assert second.at_once(step(), claim) is not None
        await asyncio.gather(*second._link._tasks)
        seen = [await passes(second, claim) is not None for _ in range(4)]
        await first.close()
        await second.close()
        return seen

    assert asyncio.run(story()) == [True, True, False, False]
    assert ("limit.known", {"model": "gpt-4o-mini", "requests": 60, "tokens": 0}) in told


def test_the_most_urgent_goes_first(claim: Claim) -> None:
    """Expected: single runs before bulk, then by priority, whoever has waited longer."""

    async def story() -> list[str]:
        gate, went = gates(Counting(), 120), list[str]()

        async def go(name: str, **changes: Any) -> None:
            await passes(gate, claim, 20, run_id=name, **changes)
            went.append(name)

        await gate.admit(step(), claim)
        await gate.admit(step(), claim)
        bulk = [asyncio.create_task(go(f"bulk {number}", batch_id="b")) for number in range(2)]
        await asyncio.sleep(0)
        later = [asyncio.create_task(go("low", priority=1)), asyncio.create_task(go("high", priority=9))]
        await asyncio.wait([*bulk, *later])
        await gate.close()
        return went

    assert asyncio.run(story()) == ["high", "low", "bulk 0", "bulk 1"]


def test_what_does_not_go_out_gives_its_place_back(claim: Claim) -> None:
    """Expected: a create that was stopped before, or found no connection, costs nothing; one that was refused does."""
    refused = ProviderError("connection_error", "no", transient=True)
    wrong = ProviderError("invalid", "no", status=400)

    async def after(*ends: ProviderError | None) -> bool:
        gate = gates(Counting(), 6)
        for end in ends:
            admitted = await passes(gate, claim)
            assert admitted is not None
            with admitted:
                if end is not None:
                    admitted.goes_out()
                    admitted.failed(end)
            await asyncio.gather(
                *(task for task in gate._link._tasks if task is not gate._gates["s", "k", "gpt-4o-mini"]._pump)
            )
        went = await passes(gate, claim) is not None
        await gate.close()
        return went

    assert asyncio.run(after(None, None, None, refused, refused))
    assert not asyncio.run(after(wrong, wrong))


def test_a_refusal_stops_the_other_workers_too(claim: Claim) -> None:
    """Expected: with a limit set, nobody creates before Retry-After is over; a full budget is no such refusal."""

    async def after(error: ProviderError) -> bool:
        redis = Counting()
        first, second = gates(redis, 6000), gates(redis, 6000)
        with await first.admit(step(), claim) as admitted:
            admitted.goes_out()
            admitted.failed(error)
        await asyncio.gather(*first._link._tasks)
        went = await passes(second, claim) is not None
        await first.close()
        await second.close()
        return went

    assert not asyncio.run(after(THROTTLED))
    assert asyncio.run(after(ProviderError("insufficient_quota", "spent", status=429)))


def test_a_response_that_failed_for_the_limits_is_a_refusal(claim: Claim) -> None:
    """Expected: background responses say it with their status; everybody waits a moment then."""

    async def story() -> bool:
        gate = gates(Counting(), 6000)
        (await gate.admit(step(), claim)).ended(Failed("rate_limit_exceeded", "", Usage(), transient=True))
        went = await passes(gate, claim) is not None
        await gate.close()
        return went

    assert not asyncio.run(story())


def test_estimates_come_from_the_text_and_then_from_what_was_used(claim: Claim) -> None:
    """Expected: a token for four characters and the longest answer at first; then what steps took, or what counts."""
    gate = gates(Counting())
    asked: Step = step({"max_output_tokens": 100, "instructions": "x" * 40}, text="y" * 40)
    assert gate._estimate(asked, "plain") == (120, 100)
    assert gate._estimate(replace(asked, history=[{"role": "user", "content": "z" * 4000}]), "plain")[1] > 1000
    gate.learn("plain", 150)
    gate.learn("plain", 200)
    assert gate._estimate(asked, "plain") == (160, 100)
    gate.learn("frugal", 10)
    assert gate._estimate(asked, "frugal") == (100, 100)


# ── without Redis ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def refusing() -> None:
    raise RedisAway("gone")


async def hanging() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("away", [refusing, hanging])
def test_without_redis_each_keeps_to_its_share(
    claim: Claim,
    away: Callable[[], Awaitable[Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Expected: a fourth of the limit for each of four workers, said once; Redis is found again when it is there."""
    monkeypatch.setattr(link, "_PATIENCE", 0.1)

    async def story() -> tuple[int, float, int]:
        redis = Counting()
        fleet = [gates(redis, 2400) for _ in range(4)]
        for one in fleet:
            assert await passes(one, claim) is not None
        assert await passes(fleet[0], claim) is not None  # the first one learns how many there are
        redis.away = away
        worker, loop = fleet[0], asyncio.get_running_loop()
        while worker._link._up:
            await passes(worker, claim, 2)
        asked, began, count = redis.asked, loop.time(), 0
        while loop.time() < began + 1:
            count += await passes(worker, claim, 2) is not None
        rate, asked = count / (loop.time() - began), redis.asked - asked
        redis.away, worker._link._again_at = None, 0.0
        assert await passes(worker, claim, 2) is not None
        assert worker._link._up
        for one in fleet:
            await one.close()
        return asked, rate, count

    asked, rate, count = asyncio.run(story())
    assert asked <= 1
    assert count >= 1
    assert rate < 14  # a fourth of forty in a second, and what gathered before
    said = capsys.readouterr()
    assert (said.out + said.err).count("limits_alone") == 1
    assert (said.out + said.err).count("limits_shared_again") == 1


# ── in a run ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Throttling(Provider):
    """Refuses its first create for the limits."""

    refused = False

    async def create(self, step: Step) -> Created:
        if not self.refused:
            self.refused = True
            raise replace_retry(THROTTLED, 0.05)
        return await super().create(step)


def replace_retry(error: ProviderError, seconds: float) -> ProviderError:
    """Return the same error with another Retry-After."""
    return ProviderError(error.code, error.message, transient=True, retry_after=seconds, status=error.status)


def limited(bench: Parts, *limits: int) -> Parts:
    """Return the parts with these limits set."""
    return replace(bench, limits=gates(Counting(), *limits))


async def drive(held: Held, bench: Parts) -> None:
    """Drive a run as an engine does whose lease holds, and close what it used."""
    async with asyncio.timeout(20):
        await drive_on(held, bench)
    await bench.limits.close()


def test_a_refused_create_costs_no_attempt(ground: Ground) -> None:
    """Expected: the run waits, creates once and completes in its first attempt; its place at the provider is free."""
    run = ground.submit()
    provider = Throttling(Done("an answer", Usage(1, 1), "item"))
    bench = limited(parts(ground, provider), 6000, 0, 1)
    asyncio.run(drive(Held(ground.take("w1")), bench))
    assert (ground.status(run), ground.row(run).attempt, len(provider.created)) == (Status.COMPLETED, 1, 1)
    assert bench.limits._gates[*bench.limits._whose(MODEL), MODEL["model"]]._held == set()


@pytest.mark.parametrize("told", ["cancel", "stop"])
def test_a_run_that_waits_for_the_limits_heeds_what_it_is_told(
    ground: Ground, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expected: a cancel ends it and a stop hands it over at once; nothing was created and no intent is left."""
    run = ground.submit()
    provider = Provider(Done("never", Usage(), None))
    bench = limited(parts(ground, provider), 1)
    held = Held(ground.take("w1"))

    async def story() -> None:
        for _ in range(2):
            await bench.limits.admit(step(), held.claim)
        gate, waits = bench.limits._gates[*bench.limits._whose(MODEL), MODEL["model"]], asyncio.Event()
        enter = gate.enter

        async def entering(*args: Any) -> None:
            waits.set()
            await enter(*args)

        monkeypatch.setattr(gate, "enter", entering)
        driving = asyncio.create_task(drive(held, bench))
        async with asyncio.timeout(10):
            await waits.wait()
        held.tell(stop=told == "stop", cancel=told == "cancel")
        await driving

    asyncio.run(story())
    assert provider.created == []
    assert held.handed_over is (told == "stop")
    assert told == "stop" or ground.status(run) is Status.CANCELLED
