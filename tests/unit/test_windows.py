"""Completion windows: their time."""

from typing import Any

import pytest

from worker import windows


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model": "m"}, None),
        ({"model": "m", "completion_window": "soonest"}, None),
        ({"model": "m", "completion_window": "2h"}, 7_200),
        ({"model": "m", "completion_window": "8h"}, 28_800),
    ],
)
def test_a_window_is_so_long(config: dict[str, Any], expected: float | None) -> None:
    """Expected: none where an assistant asks for none, and none for the soonest."""
    assert windows.seconds(config) == expected
