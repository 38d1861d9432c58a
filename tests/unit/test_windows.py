"""Completion windows: their time, what goes with them, and what they take off a price."""

from typing import Any

import pytest

from tasks.runs import _usual_timeout
from worker.assistants import windows
from worker.response import Usage
from worker.settings import Settings


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model": "m"}, 0),
        ({"model": "m", "completion_window": "soonest"}, 0),
        ({"model": "m", "completion_window": "2h"}, 7_200),
        ({"model": "m", "completion_window": "8h"}, 28_800),
    ],
)
def test_a_window_is_so_long(config: dict[str, Any], expected: float) -> None:
    """Expected: no time where an assistant asks for none, and none for the soonest."""
    assert windows.seconds(config) == expected


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"stream": False, "service_tier": "auto"},
        {"service_tier": "default", "timeout": 28_800.0, "step_timeout": 30_000.0},
    ],
)
def test_what_goes_with_a_window(more: dict[str, Any]) -> None:
    """Expected: nothing to say about what OpenAI takes beside one, and about time that is enough."""
    assert list(windows.conflicts({"completion_window": "8h", **more})) == []


@pytest.mark.parametrize("window", [{}, {"completion_window": "soonest"}])
def test_without_a_window_nothing_conflicts(window: dict[str, str]) -> None:
    """Expected: an assistant that asks for none may stream, take another tier and end soon."""
    config = {"stream": True, "service_tier": "flex", "timeout": 1.0, "step_timeout": 1.0, **window}
    assert list(windows.conflicts(config)) == []


@pytest.mark.parametrize(("word", "hours"), [("soonest", 1), ("2h", 6), ("8h", 24)])
def test_a_run_has_time_for_the_windows_of_its_steps(word: str, hours: float) -> None:
    """Expected: three windows where nobody says how long it may take, and no less than the setting."""
    assert _usual_timeout({"completion_window": word}, Settings(database_url="sqlite:///unused.db")) == hours * 3600


@pytest.mark.parametrize(("window", "expected"), [("soonest", 10.0), ("2h", 7.0), ("8h", 6.0)])
def test_a_window_takes_its_part_off_the_cost(window: str, expected: float) -> None:
    """Expected: 30 and 40 per cent below Standard; the tokens are what they were."""
    charged = windows.charged(Usage(1, 2, 10.0), {"completion_window": window})
    assert (charged.input_tokens, charged.output_tokens) == (1, 2)
    assert charged.cost_usd == pytest.approx(expected)
    assert windows.charged(Usage(1, 2, 10.0), {}) == Usage(1, 2, 10.0)


@pytest.mark.parametrize("usage", [Usage(), Usage(1, 2, None)])
def test_an_unknown_cost_stays_unknown(usage: Usage) -> None:
    """Expected: null, never 0."""
    assert windows.charged(usage, {"completion_window": "8h"}) == usage
