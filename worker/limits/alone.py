"""A worker's own share of the limits, for as long as Redis does not answer: the fleet's divided by its workers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from worker.limits.asking import AHEAD, BURST, BUSY_LOOK, LEAST_REQUESTS, SPARED, Ask, Given, Left, Limits


@dataclass(slots=True)
class Bucket:
    """What is left of one limit, as RESERVE of the scripts keeps it."""

    rate: float
    room: float
    spared: float
    level: float
    at: float

    def fill(self, now: float) -> None:
        """Add what has come since the last time."""
        self.level = min(self.room, self.level + self.rate * (now - self.at))
        self.at = now

    def seconds(self, cost: float, *, bulk: bool) -> float:
        """Return how long it takes until so much may go."""
        needed = min(self.room, cost + (self.spared if bulk else 0.0))
        return max(0.0, needed - self.level) / self.rate


class Alone:
    """The buckets of one worker, in memory; it learns no limits and keeps no places of runs."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, float], Bucket] = {}
        self._not_before = 0.0

    def reserve(self, share: Limits, workers: int, left: Left, asks: Sequence[Ask], held: int) -> Given:
        """Take what there is for the first of these creates; `held` runs of this worker are at the provider."""
        now = self._clock()
        requests = self._bucket("requests", share.requests / workers, LEAST_REQUESTS, left.requests, now)
        tokens = self._bucket("tokens", share.tokens / workers, 1.0, left.tokens, now)
        runs = max(1, share.runs // workers) if share.runs else 0
        delays: list[float] = []
        for ask in asks:
            waits = [
                bucket.seconds(cost, bulk=ask.bulk) for bucket, cost in ((requests, 1), (tokens, ask.tokens)) if bucket
            ]
            after = max([self._not_before - now, 0.0, *waits])
            full = bool(runs) and held + len(delays) >= runs - (int(runs * SPARED) if ask.bulk else 0)
            if after > AHEAD or full:
                return Given(delays, max(after - AHEAD, BUSY_LOOK if full else 0.005), workers=workers)
            delays.append(after)
            if requests:
                requests.level -= 1
            if tokens:
                tokens.level -= ask.tokens
        return Given(delays, 0.0, workers=workers)

    def settle(self, requests: int, tokens: int) -> None:
        """Give back what was reserved and not used."""
        for (kind, _), bucket in self._buckets.items():
            bucket.level += requests if kind == "requests" else tokens

    def refused(self, seconds: float) -> None:
        """Hold this worker back for so long."""
        self._not_before = max(self._not_before, self._clock() + seconds)
        for bucket in self._buckets.values():
            bucket.level = min(bucket.level, 0.0)

    def _bucket(self, kind: str, per_minute: float, least: float, left: int | None, now: float) -> Bucket | None:
        if not per_minute:
            return None
        room = max(least, per_minute / 60 * BURST)
        fresh = Bucket(per_minute / 60, room, max(least / 2, SPARED * room), 0.0, now)
        bucket = self._buckets.setdefault((kind, per_minute), fresh)
        bucket.fill(now)
        if left is not None:
            bucket.level = min(bucket.level, left)
        return bucket
