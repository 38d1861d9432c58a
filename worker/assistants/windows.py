"""Completion windows of OpenAI's background mode: how long a step may wait there, and how much less it costs then.

Source: https://developers.openai.com/api/docs/guides/background, as of November 2026. A window is a target, no promise.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from worker.response import Usage


@dataclass(frozen=True, slots=True)
class Window:
    """What one word of `completion_window` means."""

    seconds: float
    """From when the provider accepts a request."""
    discount: float
    """The part of the model's Standard token rates that is taken off."""


WINDOWS: Mapping[str, Window] = {"2h": Window(2 * 3600.0, 0.30), "8h": Window(8 * 3600.0, 0.40)}
"""Those that have one; `soonest` is the provider's default, without a target and at the full rates."""

STANDARD = ("auto", "default")
"""The words of `service_tier` that a window goes with; without one it is auto."""


def of(config: Mapping[str, Any]) -> Window | None:
    """Return the window that an assistant's configuration asks for, None where it asks for none or for the soonest."""
    return WINDOWS.get(config.get("completion_window", ""))


def seconds(config: Mapping[str, Any]) -> float:
    """Return its seconds, 0 where there is no window."""
    window = of(config)
    return window.seconds if window else 0.0


def charged(usage: Usage, config: Mapping[str, Any]) -> Usage:
    """Return what a step has used with its cost as it is charged; given is that by the Standard rates.

    No response tells which window it had (openai 3.54), so its backend, which sees nothing else, cannot know.
    """
    window = of(config)
    if window is None or usage.cost_usd is None:
        return usage
    return replace(usage, cost_usd=usage.cost_usd * (1 - window.discount))


def conflicts(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give the keys of an assistant that do not go with its window, each with what is wrong and what to do."""
    window, name, remedy = of(config), config.get("completion_window"), "leave one of the two out"
    if window is None:
        return
    if config.get("stream"):
        yield "stream", f"a step with completion_window {name} cannot be streamed; {remedy}"
    tier = config.get("service_tier", "auto")
    if tier not in STANDARD:
        yield "service_tier", f"completion_window {name} goes with {' or '.join(STANDARD)}, not {tier!r}; {remedy}"
    for key in ("timeout", "step_timeout"):
        if (limit := config.get(key, window.seconds)) < window.seconds:
            least = f"{window.seconds:.0f} s at least, or {remedy}"
            yield key, f"{limit:g} s are less than the completion_window of {name}; make it {least}"
