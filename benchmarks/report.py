"""The tables on the terminal, and the figures and plots of docs/performance.md: `python -m benchmarks.report`."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import plots
from benchmarks.figures import cells, read, spread

RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
_BEGIN, _END = "<!-- figures: python -m benchmarks.report -->\n", "<!-- end of the figures -->"
_CAPTIONS = {
    "cpu": "CPU per run at latency 0",
    "memory": "Memory against runs in flight",
    "latency": "From the provider's end to the committed result",
    "requests": "Requests per long run",
}
_PLOT_OF = {"cpu": "cpu", "memory": "memory", "latency": "latency", "long": "requests"}


def main() -> None:
    """Write the page anew from results.json."""
    results = read(RESULTS)
    if results is None:
        raise SystemExit("benchmarks/results.json: not there; run `make bench` first")
    write(results, PAGE)


def write(results: dict[str, Any], page: Path) -> None:
    """Draw the plots beside the page and put the figures between its markers."""
    drawn = plots.draw(results, page.with_suffix(""))
    (page.with_suffix("") / "results.json").write_text(json.dumps(results) + "\n")
    before, _, rest = page.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    page.write_text(before + _BEGIN + "\n" + "\n".join(_figures(results, drawn, page.stem)) + "\n" + _END + after)


def _figures(results: dict[str, Any], drawn: list[str], folder: str) -> list[str]:
    lines = [_machine(results["machine"]), "", *_ratios(results)]
    for name, scenario in results["scenarios"].items():
        headings, rows = cells(scenario)
        table = [headings, ["---", *("---:" for _ in headings[2:]), "---"], *rows]
        size = "the full size" if scenario["full"] else "the small size"
        when = scenario["date"][:16].replace("T", " ")
        load = f"{when} UTC, {size}, load {scenario['load_at_start']} at the start"
        lines += [f"### {name}", "", f"{scenario['about']} ({load})", ""]
        lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in table]
        plot = _PLOT_OF.get(name)
        if f"{plot}.svg" in drawn:
            lines += ["", f"![{_CAPTIONS[str(plot)]}]({folder}/{plot}.svg)"]
        lines.append("")
    return lines


def _machine(machine: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    pinned = "servers on the first, what is measured on the second" if machine["pinned"] else "not pinned"
    return (
        f"Measured on {machine['cores']} cores of {machine['cpu']} ({pinned}), "
        f"{machine['system']}, Python {machine['python']}; {packages}. "
        "Median (least–most) of the repetitions."
    )


def _ratios(results: dict[str, Any]) -> list[str]:
    """Say how the worker's CPU compares: the medians, and the least of each, which noise touches least."""
    rows = {row["name"]: row for row in results["scenarios"].get("cpu", {"rows": []})["rows"]}
    lines = []
    for ours in (name for name in rows if name.startswith("worker")):
        told = []
        for theirs, words in (
            ("script, plain aiohttp", "the plain script"),
            ("script, stock SDK", "the stock-SDK script"),
        ):
            mine, other = (spread(rows[name], "cpu_ms_per_run") if name in rows else None for name in (ours, theirs))
            if mine and other:
                told.append(f"{mine[0] / other[0]:.2f} × {words} (by the least: {mine[1] / other[1]:.2f})")
        lines += [f"CPU per run of the {ours}: {', '.join(told)}."] if told else []
    return ["  \n".join(lines), ""] if lines else []


def show(results: dict[str, Any], names: list[str], console: Console) -> None:
    """Print the tables."""
    for name in names:
        headings, rows = cells(results["scenarios"][name])
        table = Table(*headings, title=f"{name}: {results['scenarios'][name]['about']}")
        for row in rows:
            table.add_row(*row)
        console.print(table)


if __name__ == "__main__":
    main()
