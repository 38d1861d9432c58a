"""The simulator's limiter, on a clock that the test turns: a bucket for each key and model, refilled all the time."""

from typing import Any

import pytest

from simulator.errors import ApiError
from simulator.faults import FaultSettings, changed
from simulator.limits import Limits, counted, span


class Turned:
    """A limiter with these settings, and its clock."""

    def __init__(self, **settings: Any) -> None:
        self.now = 1000.0
        self.settings = FaultSettings(**settings)
        self.limits = Limits(lambda: self.settings, lambda: self.now)

    def take(self, key: str = "k", model: str = "m", **body: Any) -> dict[str, str]:
        return self.limits.take(key, model, body)

    def granted(self, count: int, **body: Any) -> int:
        """Return how many of so many requests pass."""
        passed = 0
        for _ in range(count):
            try:
                self.take(**body)
            except ApiError:
                continue
            passed += 1
        return passed


def test_a_minute_lets_the_limit_through() -> None:
    """Sixty a minute in bunches of one: one a second passes, and of many at once the burst."""
    world = Turned(requests_per_minute=60, limit_burst=3.0)
    assert world.granted(5) == 3
    world.now += 10
    assert world.granted(9) == 3
    passed = 0
    for _ in range(60):
        world.now += 1
        passed += world.granted(1)
    assert passed == 60


def test_what_is_refused_counts_too() -> None:
    """Who keeps knocking is kept out; who waits as long as told gets in."""
    world = Turned(requests_per_minute=60, limit_burst=1.0)
    world.take()
    for _ in range(20):
        world.now += 0.5
        assert world.granted(1) == 0
    world.now += 1
    assert world.granted(1) == 1


def test_keys_and_models_have_buckets_of_their_own() -> None:
    """One key's requests of one model leave others alone."""
    world = Turned(requests_per_minute=1)
    for key, model in (("a", "m"), ("b", "m"), ("a", "n")):
        world.take(key, model)
    with pytest.raises(ApiError):
        world.take("a", "m")


def test_the_refusal_and_every_answer_tell_the_limits() -> None:
    """Form of OpenAI's headers, Retry-After in whole seconds, and the kind that was exceeded as the error's type."""
    world = Turned(requests_per_minute=60, tokens_per_minute=6000)
    told = world.take(input="x" * 3000)
    assert {name.removeprefix("x-ratelimit-"): value for name, value in told.items()} == {
        "limit-requests": "60",
        "remaining-requests": "59",
        "reset-requests": "1s",
        "limit-tokens": "6000",
        "remaining-tokens": "5250",
        "reset-tokens": "7.5s",
    }
    with pytest.raises(ApiError, match="on tokens per min") as caught:
        world.take(max_output_tokens=6000)
    error = caught.value
    assert (error.status, error.body["error"]["code"], error.body["error"]["type"]) == (
        429,
        "rate_limit_exceeded",
        "tokens",
    )
    assert (error.headers["retry-after"], error.headers["retry-after-ms"]) == ("8", "7500")
    assert error.headers["x-ratelimit-remaining-requests"] == "58"


def test_without_limits_nothing_is_told() -> None:
    """No header may be learnt from that nobody enforces."""
    assert Turned().take() == {}


def test_a_request_counts_by_its_characters_or_its_longest_answer() -> None:
    """The larger of both."""
    assert counted({"input": "x" * 400}) == 100
    said = {"role": "user", "content": [{"type": "input_text", "text": "x" * 200}]}
    assert counted({"input": [said, {"type": "function_call_output", "output": "x" * 200}], "instructions": "x"}) == 101
    assert counted({"input": "x" * 400, "max_output_tokens": 1000}) == 1000


@pytest.mark.parametrize(("seconds", "text"), [(0.02, "20ms"), (1.5, "1.5s"), (360, "6m0s"), (0, "0ms")])
def test_times_are_written_as_openai_does(seconds: float, text: str) -> None:
    """As in x-ratelimit-reset-requests."""
    assert span(seconds) == text


def test_a_negative_limit_is_named() -> None:
    """The error says which setting is wrong."""
    with pytest.raises(ValueError, match="tokens_per_minute is a number from 0"):
        changed(FaultSettings(), {"tokens_per_minute": "-1"})
