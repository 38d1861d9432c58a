"""The runbook has an entry for every alarm: each metric, and each warning or error that a worker logs."""

import re
from pathlib import Path

from worker.observation import telemetry
from worker.observation.metrics import Backlog, Metrics

ROOT = Path(__file__).parents[2]
LOGGED = re.compile(r"_log\.(?:warning|error|critical|exception)\(\s*\"(\w+)\"")


def entries() -> set[str]:
    """Return what the headings of the runbook name."""
    headings = re.findall(r"^### (.+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    return {name for heading in headings for name in re.findall(r"`([^`]+)`", heading)}


def metrics() -> set[str]:
    """Return the metrics that a worker shows; vitals are registered when it runs."""
    families = [*Metrics([]).registry.collect(), *Backlog(list, []).collect()]
    counted = {f"{one.name}_total" if one.type == "counter" else one.name for one in families}
    return {name for name in counted if name.startswith("runwright_")} | {
        f"runwright_{name}"
        for name in re.findall(r"gauge\(\"(\w+)\"", (ROOT / "worker" / "observation" / "metrics.py").read_text())
    }


def test_every_metric_has_an_entry() -> None:
    """And no entry is of a metric that is not there."""
    assert {name for name in entries() if name.startswith("runwright_")} == metrics()


def test_every_warning_has_an_entry() -> None:
    """And no entry is of an event that nobody logs."""
    files = [file for folder in ("worker", "tools") for file in (ROOT / folder).rglob("*.py")]
    logged = {name for file in files for name in LOGGED.findall(file.read_text())}
    assert len(logged) > 10
    assert {name for name in entries() if not name.startswith("runwright_")} == logged | telemetry._WARNINGS
