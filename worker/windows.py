"""Completion windows of OpenAI's background mode: how long a step may wait there, and how much less it costs then.

Source: https://developers.openai.com/api/docs/guides/background, as of November 2026. A window is a target, no promise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Window:
    """What one word of `completion_window` means."""

    seconds: float
    """From when the provider accepts a request."""
    discount: float
    """The part of the model's Standard token rates that is taken off."""


WINDOWS: Mapping[str, Window] = {"2h": Window(2 * 3600.0, 0.30), "8h": Window(8 * 3600.0, 0.40)}
"""Those that have one; `soonest` is the provider's default, without a target and at the full rates."""


def of(config: Mapping[str, Any]) -> Window | None:
    """Return the window that an assistant's configuration asks for, None where it asks for none or for the soonest."""
    return WINDOWS.get(config.get("completion_window", ""))


def seconds(config: Mapping[str, Any]) -> float | None:
    """Return its seconds, None where there is no window."""
    window = of(config)
    return window.seconds if window else None
