"""The plots of docs/performance.md, drawn from results.json."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures import spread

_OURS, _THEIRS = "#1b6ca8", "#b8b8b8"
mpl.rcParams.update({"svg.hashsalt": "runwright", "svg.fonttype": "none", "font.size": 9})


def draw(results: dict[str, Any], folder: Path) -> list[str]:
    """Draw what there are figures for and return the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for scenario, name, plot in _PLOTS:
        rows = [row for row in results["scenarios"].get(scenario, {"rows": []})["rows"] if row["repeats"]]
        if rows:
            figure = Figure(figsize=(7.2, 0.6 + 0.42 * len(rows) if plot in (_cpu, _requests) else 3.2))
            axes = figure.add_subplot()
            plot(axes, rows)
            axes.spines[["top", "right"]].set_visible(False)
            figure.tight_layout()
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            drawn.append(f"{name}.svg")
    return drawn


def _ours(row: dict[str, Any]) -> bool:
    return bool(row["name"].startswith("worker"))


def _bars(axes: Axes, rows: list[dict[str, Any]], name: str, label: str) -> None:
    """Draw the medians as bars with their figures, and from the least to the most as a line."""
    told = [(row, found) for row in reversed(rows) if (found := spread(row, name))]
    for place, (row, (middle, least, most)) in enumerate(told):
        axes.barh(place, middle, color=_OURS if _ours(row) else _THEIRS)
        axes.plot([least, most], [place, place], color="black", linewidth=1)
        axes.annotate(
            f"{middle:.3g}", (max(middle, most), place), xytext=(4, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(told)), [row["name"] for row, _ in told])
    axes.set_xlabel(label)
    axes.margins(x=0.12)


def _cpu(axes: Axes, rows: list[dict[str, Any]]) -> None:
    _bars(axes, rows, "cpu_ms_per_run", "CPU per run, ms (bar: median; line: least to most)")


def _requests(axes: Axes, rows: list[dict[str, Any]]) -> None:
    _bars(axes, rows, "requests_per_run", "requests to the provider per run")


def _memory(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Draw the peak against the runs in flight; with none in flight, what it was after its first twenty runs."""
    idle = min(each["rss_before_mib"] for row in rows for each in row["repeats"])
    points = [
        (0.0, idle),
        *((float(row["repeats"][0]["runs"]), (spread(row, "peak_rss_mib") or (0.0,))[0]) for row in rows),
    ]
    axes.plot(*zip(*points, strict=True), marker="o", color=_OURS)
    for runs, mib in points:
        axes.annotate(f"{mib:.0f}", (runs, mib), xytext=(0, 6), textcoords="offset points", ha="center")
    axes.set_ylim(0, 1.25 * max(mib for _, mib in points))
    axes.set_xlabel("runs in flight in one worker process")
    axes.set_ylabel("peak RSS, MiB")


def _late(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Draw the share of runs whose result was there after so long; of each contender the middle repetition."""
    for number, row in enumerate(rows):
        middle = sorted(row["repeats"], key=lambda each: each["end_to_commit_p50"])[len(row["repeats"]) // 2]
        times = [max(seconds, 0.001) for seconds in middle["end_to_commit"]]
        style = "-" if _ours(row) else "--"
        axes.plot(
            times,
            [place / len(times) * 100 for place in range(len(times))],
            style,
            label=row["name"],
            color=f"C{number}",
        )
    axes.set_xscale("log")
    axes.set_xlabel("seconds from the provider's end to the committed result (scripts: to the answer received)")
    axes.set_ylabel("% of the runs")
    axes.legend(frameon=False, fontsize=8)


_Plot = Callable[[Axes, list[dict[str, Any]]], None]
_PLOTS: tuple[tuple[str, str, _Plot], ...] = (
    ("cpu", "cpu", _cpu),
    ("memory", "memory", _memory),
    ("latency", "latency", _late),
    ("long", "requests", _requests),
)
