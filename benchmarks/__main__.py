"""`make bench` and `make bench-full`: measure, print, write results.json, the plots and the figures of the page."""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import report
from benchmarks.figures import read
from benchmarks.machine import core_of, facts
from benchmarks.scenarios import ONCE, SCENARIOS, Scale, carried_out
from benchmarks.servers import ground

_CONSOLE = Console(stderr=True)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the whole table, up to 10,000 runs in flight")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="NAME")
    parser.add_argument("--runs", type=int, help="runs in each measurement of cpu and workers (300; full 1,500)")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement (3); the long ones run once")
    parser.add_argument("--page", action="store_true", help="write the plots and figures of docs/performance.md, too")
    parser.add_argument("--json", action="store_true", help="print the results instead of tables")
    return parser.parse_args()


def main() -> None:
    """Measure what is asked for; what was measured earlier of the other scenarios stays in results.json."""
    asked = _asked()
    scale = Scale(asked.full, asked.repeats, asked.runs or (1500 if asked.full else 300))
    results: dict[str, Any] = {"machine": facts(), "scale": "full" if asked.full else "small", "scenarios": {}}
    with tempfile.TemporaryDirectory(prefix="runwright-bench-") as folder, _progress() as show:
        Path(folder).chmod(0o755)
        with core_of("servers"), ground(Path(folder)) as there:
            for name in asked.only:
                results["scenarios"][name] = _measured(name, there, scale, show)
    earlier = read(report.RESULTS)
    known = {**(earlier["scenarios"] if earlier else {}), **results["scenarios"]}
    results["scenarios"] = {name: known[name] for name in SCENARIOS if name in known}
    report.RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if asked.page:
        report.write(results, report.PAGE)
    if asked.json:
        print(json.dumps(results, indent=1))
    else:
        report.show(results, asked.only, Console(width=None if sys.stdout.isatty() else 180))


def _measured(name: str, there: Any, scale: Scale, show: Any) -> dict[str, Any]:
    began, load = time.monotonic(), os.getloadavg()[0]
    repeats = 1 if name in ONCE and not scale.full else scale.repeats
    rows = carried_out(list(SCENARIOS[name](there, scale)), repeats, lambda what: show(f"{name}: {what}"))
    told = {
        "date": facts()["date"],
        "full": scale.full,
        "load_at_start": round(load, 2),
        "took_seconds": round(time.monotonic() - began, 1),
    }
    return {"about": SCENARIOS[name].__doc__, **told, "rows": rows}


@contextmanager
def _progress() -> Iterator[Any]:
    with _CONSOLE.status("starting the servers") as status:
        if _CONSOLE.is_terminal:
            yield status.update
        else:
            yield _CONSOLE.print


if __name__ == "__main__":
    main()
