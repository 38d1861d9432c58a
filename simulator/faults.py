"""Latency and injected errors: one seeded generator decides, so that a run of faults can be repeated.

A new fault is a field of FaultSettings and a line where it acts: `gate` before a request is read (429, 500, a late
answer), `latency` for how long a response takes.
"""

import dataclasses
import random
from typing import Any

from simulator.errors import ApiError, rate_limited, server_error


@dataclasses.dataclass(frozen=True, slots=True)
class FaultSettings:
    """What can be set by flag, SIMULATOR_* variable, or POST /_simulator/settings."""

    latency: str = "0.2:1.5"
    """Seconds a response takes: `MIN:MAX` (uniform), one number, or `lognormal:MEDIAN:SIGMA`."""
    seed: int = 0
    """Seed of the generator behind latency and errors."""
    rate_limit_share: float = 0.0
    """Share of creates and polls answered with 429 and Retry-After."""
    error_share: float = 0.0
    """Share of creates and polls answered with 500."""
    retry_after: float = 1.0
    """Seconds that a 429 asks the client to wait."""

    def __post_init__(self) -> None:
        _latency_parts(self.latency)
        for share in (self.rate_limit_share, self.error_share):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"a share is a number from 0 to 1, not {share}")
        if self.retry_after < 0:
            raise ValueError(f"retry_after is a number of seconds, not {self.retry_after}")


def changed(settings: FaultSettings, given: dict[str, Any]) -> FaultSettings:
    """Return the settings with the given ones replaced; texts are converted, ValueError names what is wrong."""
    fields = {field.name: field.type for field in dataclasses.fields(FaultSettings)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in fields:
            raise ValueError(f"unknown setting {name!r}; known: {', '.join(fields)}")
        kind = type(getattr(settings, name))
        try:
            values[name] = kind(value)
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be {kind.__name__}, not {value!r}") from None
    return dataclasses.replace(settings, **values)


class Faults:
    """The generator, and the questions that the simulator asks it."""

    def __init__(self, settings: FaultSettings) -> None:
        self.apply(settings)

    def apply(self, settings: FaultSettings) -> None:
        """Use these settings from now on; the generator starts anew from their seed."""
        self.settings = settings
        self._kind, self._first, self._second = _latency_parts(settings.latency)
        self._random = random.Random(settings.seed)

    def gate(self) -> ApiError | None:
        """Return the error that this create or poll is answered with, if any."""
        drawn = self._random.random()
        if drawn < self.settings.rate_limit_share:
            return rate_limited(self.settings.retry_after)
        if drawn < self.settings.rate_limit_share + self.settings.error_share:
            return server_error()
        return None

    def latency(self) -> float:
        """Return how many seconds the next response takes."""
        if self._kind == "lognormal":
            return self._first * self._random.lognormvariate(0.0, self._second)
        return self._random.uniform(self._first, self._second)


def _latency_parts(text: str) -> tuple[str, float, float]:
    kind, _, rest = text.partition(":") if text.startswith("lognormal:") else ("uniform", "", text)
    numbers = rest.split(":")
    try:
        first, second = float(numbers[0]), float(numbers[-1])
    except ValueError:
        first = second = -1.0
    if len(numbers) > 2 or first < 0 or second < 0 or (kind == "uniform" and second < first):
        raise ValueError(f"latency is MIN:MAX, SECONDS or lognormal:MEDIAN:SIGMA, not {text!r}")
    return kind, first, second
