"""Latency and faults: one seeded generator decides, so that a run of faults can be repeated.

A new fault is a field of FaultSettings and a line where it acts: `gate` for what happens to a request, `fate` and
`latency` for what becomes of a response, the settings themselves for the provider's rules.
"""

import dataclasses
import math
import random
from collections.abc import Callable
from typing import Any

from simulator.errors import ApiError, rate_limited, server_error

_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def _setting(default: Any, note: str, one_of: tuple[str, ...] = ()) -> Any:
    """Return a field of the settings; the note is what its flag's help says."""
    return dataclasses.field(default=default, metadata={"note": note, "one_of": one_of})


@dataclasses.dataclass(frozen=True, slots=True)
class FaultSettings:
    """What can be set by flag, SIMULATOR_* variable, or POST /_simulator/settings.

    `*_share` is a number from 0 to 1, an integer a count, every other number is in seconds. Creates are POST
    /responses, /chat/completions, a thread's runs and their outputs, streamed or not; polls are GET /responses/{id} and
    that of a thread's run.
    """

    latency: str = _setting("0.2:1.5", "seconds a response takes: MIN:MAX, SECONDS or lognormal:MEDIAN:SIGMA")
    seed: int = _setting(0, "seed of latency and faults")
    rate_limit_share: float = _setting(0.0, "share of creates and polls answered 429")
    requests_per_minute: int = _setting(0, "creates that each key may make of each model in a minute; 0: any number")
    tokens_per_minute: int = _setting(0, "tokens that they may count for in a minute; 0: any number")
    limit_burst: float = _setting(60.0, "seconds' worth of a limit that may go at once")
    error_share: float = _setting(0.0, "share of creates and polls answered 500")
    retry_after: float = _setting(1.0, "seconds that a 429 asks to wait")
    drop_before_share: float = _setting(0.0, "share of creates and polls whose connection is cut and nothing done")
    drop_after_share: float = _setting(0.0, "share of creates and polls that are done and whose connection is cut")
    slow_share: float = _setting(0.0, "share of creates and polls whose answer's body trickles in")
    slow_seconds: float = _setting(5.0, "seconds that such a body takes")
    late_share: float = _setting(0.0, "share of creates whose connection is cut and that are done later")
    late_seconds: float = _setting(2.0, "seconds after which a late create is done")
    queued_seconds: float = _setting(0.0, "seconds that every response is queued before its latency begins")
    stuck_share: float = _setting(0.0, "share of responses that stay queued until they are cancelled")
    stream_deltas: int = _setting(20, "most deltas in which a text, or a call's arguments, is streamed")
    stream_cut_share: float = _setting(0.0, "share of streams whose connection is cut before their end")
    stream_stall_share: float = _setting(0.0, "share of streams that send nothing more, and stay open")
    stream_events: int = _setting(3, "events that such a stream sends before")
    fail_share: float = _setting(0.0, "share of responses that end failed")
    fail_code: str = _setting("server_error", "error code of such a failure")
    lock_while_queued: bool = _setting(True, "a queued response locks its conversation")
    items_lock: bool = _setting(False, "a locked conversation refuses items as well")
    items_on_failure: str = _setting(
        "none", "what a failed or cancelled response leaves in its conversation", ("none", "input", "all")
    )
    cancel_completes: bool = _setting(False, "a cancel is answered, and what it was for goes on to its end")
    cancelling_seconds: float = _setting(0.2, "seconds that a thread's run is cancelling before it is cancelled")
    expire_seconds: float = _setting(600.0, "seconds after which a thread's run that has not ended expires")
    poll_after_ms: int = _setting(1000, "openai-poll-after-ms of a thread's run that has not ended; 0: none")
    stateless: bool = _setting(False, "a server that keeps nothing, as Ollama: foreground only, no conversations")
    outage: str = _setting("off", "how every request to the API ends", ("off", "drop", "503", "hang"))

    def __post_init__(self) -> None:
        _latency_parts(self.latency)
        for field in dataclasses.fields(self):
            value, one_of = getattr(self, field.name), field.metadata["one_of"]
            if field.name.endswith("_share") and not 0.0 <= value <= 1.0:
                raise ValueError(f"{field.name}: a share is a number from 0 to 1, not {value}")
            if field.name.startswith(("stream_", "poll_")) and value < 0:
                raise ValueError(f"{field.name} is a count, not {value}")
            if field.name.endswith("_per_minute") and value < 0:
                raise ValueError(f"{field.name} is a number from 0, not {value}")
            if isinstance(value, float) and not 0.0 <= value < math.inf:
                raise ValueError(f"{field.name} is a number of seconds, not {value}")
            if one_of and value not in one_of:
                raise ValueError(f"{field.name} is one of {', '.join(one_of)}, not {value!r}")


def changed(settings: FaultSettings, given: dict[str, Any]) -> FaultSettings:
    """Return the settings with the given ones replaced; texts are converted, ValueError names what is wrong."""
    fields = {field.name: field.type for field in dataclasses.fields(FaultSettings)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in fields:
            raise ValueError(f"unknown setting {name!r}; known: {', '.join(fields)}")
        kind = type(getattr(settings, name))
        try:
            values[name] = _SWITCH[str(value).lower()] if kind is bool else kind(value)
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{name} must be {kind.__name__}, not {value!r}") from None
    return dataclasses.replace(settings, **values)


@dataclasses.dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong with one request: `drop before`, `drop after`, `late` or `slow`; or `stuck`, its response.

    Or with its stream, `cut` or `stall`: after so many events then in place of seconds.
    """

    kind: str
    seconds: float = 0.0
    at: int = 0
    """The round that a directive asks it for, and how often it then happens to one client run."""
    times: int = 1


class Faults:
    """The generator, and the questions that the simulator asks it."""

    def __init__(self, settings: FaultSettings) -> None:
        self.apply(settings)

    def apply(self, settings: FaultSettings) -> None:
        """Use these settings from now on; the generator starts anew from their seed."""
        self.settings = settings
        self._kind, self._first, self._second = _latency_parts(settings.latency)
        self._random = random.Random(settings.seed)
        shares: list[tuple[float, Callable[[], ApiError | Trouble]]] = [
            (settings.rate_limit_share, lambda: rate_limited(settings.retry_after)),
            (settings.error_share, server_error),
            (settings.drop_before_share, lambda: Trouble("drop before")),
            (settings.drop_after_share, lambda: Trouble("drop after")),
            (settings.slow_share, lambda: Trouble("slow", settings.slow_seconds)),
        ]
        self._shares = [one for one in shares if one[0]]

    def gate(self, *, create: bool = False) -> ApiError | Trouble | None:
        """Return the error that this create or poll is answered with, or what else happens to it, if anything."""
        drawn = self._random.random()
        for share, fault in self._shares:
            if drawn < share:
                return fault()
            drawn -= share
        return Trouble("late", self.settings.late_seconds) if create and drawn < self.settings.late_share else None

    def fate(self) -> str | None:
        """Return what becomes of the next response, `stuck` or `failed`, if not what its model says."""
        if not self.settings.stuck_share and not self.settings.fail_share:
            return None
        drawn = self._random.random()
        if drawn < self.settings.stuck_share:
            return "stuck"
        return "failed" if drawn < self.settings.stuck_share + self.settings.fail_share else None

    def stream(self) -> Trouble | None:
        """Return what befalls the next stream, if anything."""
        settings = self.settings
        if not settings.stream_cut_share and not settings.stream_stall_share:
            return None
        drawn = self._random.random()
        if drawn >= settings.stream_cut_share + settings.stream_stall_share:
            return None
        return Trouble("cut" if drawn < settings.stream_cut_share else "stall", settings.stream_events)

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
