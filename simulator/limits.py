"""The provider's rate limits: for each key and model a bucket of requests and one of tokens, refilled all the time.

Form of headers and message: OpenAI's guide on rate limits. A request counts as the larger of its limit of output
tokens and a quarter of its characters; requests that fail count too, and so do those that are refused.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from simulator.errors import over_limit
from simulator.faults import FaultSettings
from simulator.wire import JsonObject, tokens

_MOST = ("max_output_tokens", "max_completion_tokens", "max_tokens")


@dataclasses.dataclass(slots=True)
class Bucket:
    """What is left of one limit; `room` is the most that can gather."""

    per_minute: int
    room: float
    left: float
    at: float

    def fill(self, now: float) -> None:
        """Add what has come since the last time."""
        self.left = min(self.room, self.left + self.per_minute / 60 * (now - self.at))
        self.at = now

    def seconds_until(self, cost: float) -> float:
        """Return how long so much takes to be there; what exceeds the bucket goes when it is full."""
        return max(0.0, min(cost, self.room) - self.left) * 60 / self.per_minute

    def headers(self, kind: str) -> dict[str, str]:
        """Return the three headers of this limit."""
        return {
            f"x-ratelimit-limit-{kind}": str(self.per_minute),
            f"x-ratelimit-remaining-{kind}": str(max(0, int(self.left))),
            f"x-ratelimit-reset-{kind}": span(self.seconds_until(self.room)),
        }


class Limits:
    """The buckets of one simulator; a limit that is changed begins full."""

    def __init__(self, settings: Callable[[], FaultSettings], clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._buckets: dict[tuple[str, str, str], Bucket] = {}

    def take(self, key: str, model: str, body: JsonObject) -> dict[str, str]:
        """Take one request and its tokens and return the headers of the answer; ApiError where there is not enough."""
        settings = self._settings()
        costs = {
            "requests": (settings.requests_per_minute, 1),
            "tokens": (settings.tokens_per_minute, counted(body)),
        }
        taken = {kind: (self._bucket(key, model, kind, limit), cost) for kind, (limit, cost) in costs.items() if limit}
        waits = {kind: bucket.seconds_until(cost) for kind, (bucket, cost) in taken.items()}
        refused = next((kind for kind, wait in waits.items() if wait > 1e-9), None)
        for kind, (bucket, cost) in taken.items():
            if refused is None:
                bucket.left -= cost
            elif kind == "requests":
                bucket.left = max(0.0, bucket.left - 1)
        headers = {name: text for kind, (bucket, _) in taken.items() for name, text in bucket.headers(kind).items()}
        if refused is None:
            return headers
        bucket, cost = taken[refused]
        raise over_limit(model, refused, bucket.per_minute, bucket.seconds_until(cost), headers)

    def _bucket(self, key: str, model: str, kind: str, limit: int) -> Bucket:
        now = self._clock()
        bucket = self._buckets.get((key, model, kind))
        room = max(1.0, limit / 60 * self._settings().limit_burst)
        if bucket is None or (bucket.per_minute, bucket.room) != (limit, room):
            bucket = self._buckets[key, model, kind] = Bucket(limit, room, room, now)
        bucket.fill(now)
        return bucket


def counted(body: JsonObject) -> int:
    """Return what a request counts for before it has run."""
    most = next((body[name] for name in _MOST if body.get(name)), None)
    text = "".join(_texts([body.get(name) for name in ("instructions", "input", "messages")]))
    return max(most if isinstance(most, int) else 0, tokens(text))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from (text for one in value for text in _texts(one))
    elif isinstance(value, dict):
        yield from (text for name in ("content", "text", "output") for text in _texts(value.get(name)))


def span(seconds: float) -> str:
    """Return a time as the headers write it: 6m0s, 1.5s, 20ms."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:.0f}s" if minutes else f"{rest:.3g}s"
