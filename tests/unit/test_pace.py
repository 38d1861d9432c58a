"""What the engine says reaches a run wherever it waits, also in the very moment in which its time is over."""

import asyncio
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest
import uvloop

from tests.conformance.ground import Ground
from tests.driving import drive_on
from tests.workbench import Provider, parts
from worker.backends.base import Created, Done, Look, NeedsTools, Step
from worker.errors import ProviderError
from worker.lifecycle import Status
from worker.limits.gates import Admission
from worker.parts import Parts
from worker.response import Asked, Usage
from worker.run.pace import HandOver, Held, Pace
from worker.store import leases, reading
from worker.store.claiming import Claim


def test_what_is_told_as_the_time_runs_out_does_no_harm(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: the teller, who has a thousand others to tell, gets no error, and the run is handed over."""
    ground.submit()
    held = Held(ground.take())
    told: list[str] = []

    def tell() -> None:
        try:
            held.tell(stop=True)
        except RuntimeError as error:
            told.append(str(error))

    async def story() -> None:
        pace = Pace(held, parts(ground, Provider()), lambda: True)
        monkeypatch.setattr(Pace, "seconds_left", lambda _: 0.0)  # passes in the round of the loop in which it is told

        async def request() -> None:
            asyncio.get_running_loop().call_soon(tell)
            await asyncio.Event().wait()

        await pace.unless_told(request)

    with pytest.raises(HandOver):
        asyncio.run(story())
    assert (held.stopping, told) == (True, [])


def test_a_wait_that_ends_late_takes_no_other_with_it(ground: Ground) -> None:
    """Expected: a pause that is being cancelled while the next wait has begun leaves that one its ear."""
    ground.submit()
    held = Held(ground.take())
    heard: list[str] = []
    late = held.heard_by(lambda: heard.append("late"))
    late.__enter__()
    with held.heard_by(lambda: heard.append("next")):
        late.__exit__(None, None, None)
        held.tell(stop=True)
    assert heard == ["next"]


# ── time that is not the run's ────────────────────────────────────────────────────────────────────────────────────────

HOUR = 3600.0
ANSWER = Done("done", Usage(), "item_1")
REFUSED = ProviderError("http_429", "too many", transient=True, status=429)
AWAY = ProviderError("connection_error", "nobody there", transient=True)


class Clock:
    """The clock of a run, which can be put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0.0
        monkeypatch.setattr("worker.run.pace.monotonic", lambda: monotonic() + self._ahead)

    def pass_hour(self) -> None:
        self._ahead += HOUR


class Refusing(Provider):
    """Meets the create of one step with an error, once."""

    def __init__(self, error: ProviderError, *looks: Look, step: int = 0) -> None:
        super().__init__(*looks, ANSWER)
        self._errors = {step: error}

    async def create(self, step: Step) -> Created:
        if error := self._errors.pop(step.number, None):
            raise error
        return await super().create(step)


def driven(ground: Ground, bench: Parts) -> Any:
    """Drive the run that is due, which has half an hour, and return its row."""
    held = Held(replace(ground.take(), seconds_left=HOUR / 2))

    async def drive() -> None:
        async with asyncio.timeout(20):
            await drive_on(held, bench)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:  # as engines do: it has timers of its own
        loop.run(drive())
    return ground.row(held.claim.run_id)


@pytest.mark.parametrize(
    ("error", "status"), [(REFUSED, Status.COMPLETED), (AWAY, Status.EXPIRED)], ids=["a limit", "an outage"]
)
def test_what_the_limits_refuse_does_not_age(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, error: ProviderError, status: Status
) -> None:
    """Expected: an hour behind a 429 leaves a run its time, and one behind an outage ends it as it always did."""
    ground.submit()
    clock, bench = Clock(monkeypatch), parts(ground, Refusing(error))

    async def over() -> None:
        clock.pass_hour()

    monkeypatch.setattr(bench.outage, "over", over)
    assert driven(ground, bench).status == status


@pytest.mark.parametrize("place", ["the limits", "a slot"])
def test_waiting_for_a_place_does_not_age(ground: Ground, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Expected: the run completes an hour after it was to expire, and its row says when it really will."""
    ground.submit()
    clock, provider = Clock(monkeypatch), Provider(ANSWER)
    bench = parts(ground, provider)

    async def admit(_step: Step, claim: Claim) -> Admission:
        clock.pass_hour()
        return bench.limits.resumed(claim)

    async def acquire() -> bool:
        clock.pass_hour()
        return True

    if place == "the limits":
        monkeypatch.setattr(bench.limits, "at_once", lambda *_: None)
        monkeypatch.setattr(bench.limits, "admit", admit)
    else:
        monkeypatch.setattr(provider.slots, "acquire", acquire)
    row = driven(ground, bench)
    left = (row.deadline_at - ground.now()).total_seconds()
    assert (row.status, HOUR / 2 - 60 < left <= HOUR / 2) == (Status.COMPLETED, True)


def test_what_stood_still_is_handed_over(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: a worker that stops while the limits hold back a later step leaves the run all the time that it had."""
    asked = NeedsTools((Asked("call_1", "no_tool", "{}"),), Usage(), "item_1")
    run, provider = ground.submit(), Refusing(REFUSED, asked, step=1)
    clock, bench = Clock(monkeypatch), parts(ground, provider)
    held = Held(replace(ground.take(), seconds_left=HOUR / 2))

    async def over() -> None:
        clock.pass_hour()
        held.tell(stop=True)

    monkeypatch.setattr(bench.outage, "over", over)
    asyncio.run(drive_on(held, bench))
    ground.write(leases.hand_over, held.claim.worker, {run: held.left})
    left = (ground.row(run).deadline_at - ground.now()).total_seconds()
    assert (held.handed_over, HOUR / 2 - 60 < left <= HOUR / 2) == (True, True)


def test_no_answer_keeps_a_run_waiting_for_ever(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: where a limit is said to last for years, which would not age the run, it is asked again in an hour."""
    ground.submit()
    held = Held(ground.take())
    answers = [ProviderError("http_429", "too many", transient=True, status=429, retry_after=1e9)]
    paused: list[float] = []

    async def pause(_pace: Pace, seconds: float) -> None:
        paused.append(seconds)

    async def request() -> None:
        if answers:
            raise answers.pop()

    async def story() -> None:
        await Pace(held, parts(ground, Provider()), lambda: True).patiently(request, whole=True)

    monkeypatch.setattr(Pace, "_pause_or_outage", pause)
    asyncio.run(story())
    assert [HOUR <= seconds <= 1.1 * HOUR for seconds in paused] == [True]


def test_a_provider_that_refuses_is_told_of(ground: Ground) -> None:
    """Expected: with the third refusal, and when it answers again; `show` says so in between."""
    ground.submit()
    held = Held(ground.take())
    answers = [ProviderError("http_503", "away", transient=True)] * 5
    shown: list[list[str]] = []

    async def story() -> None:
        pace = Pace(held, parts(ground, Provider()), lambda: True)

        async def request() -> None:
            with ground.database.read() as connection:
                shown.append(reading.refused(connection, held.claim.run_id))
            if answers:
                raise answers.pop()

        await pace.patiently(request)

    asyncio.run(story())
    with ground.database.read() as connection:
        shown.append(reading.refused(connection, held.claim.run_id))
    assert [len(one) for one in shown] == [0, 0, 0, 1, 1, 1, 0]
    assert "http_503" in shown[3][0]
