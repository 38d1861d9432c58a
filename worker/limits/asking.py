"""What the gate asks for, and what it is told."""

from dataclasses import dataclass
from typing import NamedTuple

BURST = 0.25  # seconds' worth of a limit that may go at once
LEAST_REQUESTS = 2.0  # and no fewer requests: one for bulk, one that it leaves to what is urgent
SPARED = 0.1  # the part of a bucket, and of the runs at the provider, that bulk leaves alone
AHEAD = 0.2  # seconds that a place is given away before its time, so that none passes while its taker is being woken
BUSY_LOOK = 0.25  # seconds between looks for a free place among the runs at the provider


class Limits(NamedTuple):
    """Limits of one model; 0 stands for none."""

    requests: int = 0
    tokens: int = 0
    runs: int = 0

    def within(self, other: "Limits") -> "Limits":
        """Return the stricter of each."""
        pairs = zip(self, other, strict=True)
        return Limits(*(min(filter(None, pair), default=0) for pair in pairs))


NONE = Limits()


@dataclass(frozen=True, slots=True)
class Left:
    """What the provider last said is left; None where it has not said so since the last time."""

    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """One create: of which run, how many tokens it may take, and whether it is bulk."""

    run_id: str
    tokens: int
    bulk: bool
    least: int = 0
    """Tokens that it counts for however few it takes."""


@dataclass(frozen=True, slots=True)
class Given:
    """The seconds until each of the first asks may go, and those after which it makes sense to ask for the next."""

    delays: list[float]
    wait: float
    limits: Limits = NONE
    """What is known to be the limit, learnt by any worker."""
    workers: int = 1
    """How many workers have asked within the last half minute."""
