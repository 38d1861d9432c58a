"""The figures of results.json: of a row's repetitions the median, with the least and the most."""

import json
import statistics
from pathlib import Path
from typing import Any

# Name in a row, heading, digits.
_COLUMNS = (
    ("cpu_ms_per_run", "CPU ms/run", 2),
    ("driver_cpu_ms_per_run", "of that in the database's driver", 2),
    ("runs_per_second", "runs/s", 1),
    ("requests_per_run", "requests/run", 2),
    ("end_to_commit_p50", "end to commit p50 s", 3),
    ("end_to_commit_p99", "p99 s", 3),
    ("peak_rss_mib", "peak RSS MiB", 0),
    ("pss_mib", "PSS MiB at the end", 0),
    ("provider_connections", "connections: provider", 0),
    ("database_connections", "database", 0),
    ("waiting_cpu_ms_per_minute", "CPU ms per waiting run and minute", 2),
    ("largest_share", "% of the runs by one worker", 0),
    ("queries_per_second", "queries/s", 2),
    ("idle_cpu_percent", "CPU, % of a core", 2),
    ("submits_per_second", "submits/s", 0),
    ("claim_ms", "claim of 100, ms", 2),
    ("command_ms", "wall clock ms", 0),
    ("command_cpu_ms", "CPU ms", 0),
    ("provider_cpu_ms_per_request", "provider's own CPU ms/request", 2),
    ("calibration_ms", "calibration ms", 0),
)


def read(file: Path) -> dict[str, Any] | None:
    """Return the results, None where there are none that can be read."""
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found if "scenarios" in found else None


def spread(row: dict[str, Any], name: str) -> tuple[float, float, float] | None:
    """Return median, least and most of a figure over the repetitions."""
    values = [each[name] for each in row["repeats"] if each.get(name) is not None]
    return (statistics.median(values), min(values), max(values)) if values else None


def cells(scenario: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of a scenario's table; what nobody has is left out."""
    columns = [column for column in _COLUMNS if any(spread(row, column[0]) for row in scenario["rows"])]
    rows = [
        [row["name"], *(_cell(row, name, digits) for name, _, digits in columns), _wrong(row)]
        for row in scenario["rows"]
    ]
    return ["", *(heading for _, heading, _ in columns), "checks"], rows


def _cell(row: dict[str, Any], name: str, digits: int) -> str:
    found = spread(row, name)
    if found is None:
        return "–"
    middle, least, most = (f"{value:,.{digits}f}" for value in found)
    return middle if len(row["repeats"]) == 1 or least == most else f"{middle} ({least}–{most})"


def _wrong(row: dict[str, Any]) -> str:
    wrong = [check for each in row["repeats"] for check in each.get("checks", [])] + row["failed"]
    return "; ".join(dict.fromkeys(each.split("\n", 1)[0] for each in wrong)) or "passed"
