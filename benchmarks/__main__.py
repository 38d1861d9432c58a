"""`make bench`: runs per second and CPU per run, of a worker and of the bare script, on latency 0."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import bare
from tasks import runs
from tasks.cli import stack
from worker.producer import Producer
from worker.settings import environment
from worker.store import assistants, batches
from worker.store.database import Database

AT_ONCE = 64
CONFIG = {"model": bare.MODEL, "tools": ["calculate"]}
RESULTS = Path(__file__).parent / "results.json"


def main() -> None:
    """Measure, print, and write results.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=300, help="runs in each measurement (300)")
    count = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="runwright-bench-") as folder:
        rows = _measure(Path(folder), count)
    RESULTS.write_text(json.dumps({"runs": count, "rows": rows}, indent=2) + "\n")
    _print(rows, count)


def _measure(home: Path, count: int) -> list[dict[str, Any]]:
    fast = {"RUNWRIGHT_POLL_MIN": "0.05", "RUNWRIGHT_REQUEST_LIMIT": str(AT_ONCE), "SIMULATOR_LATENCY": "0:0"}
    environ = {**environment(with_settings=False), **fast}
    with stack.running(home, environ, simulate=True) as running, running.interrupts.breaking():
        producer = Producer(running.settings())
        with producer.database.write() as connection:
            assistants.apply(connection, "bench", CONFIG)
        url = running.environ["OPENAI_BASE_URL"]
        _carry(producer, 20)  # warm
        _reset(url)
        ours = _worker_row(running, producer, count)
        requests = _counters(url)["requests"]
        _reset(url)
        theirs = _bare_row(url, count)
    return [{**ours, "requests_per_run": requests / count}, theirs]


def _worker_row(running: stack.Stack, producer: Producer, count: int) -> dict[str, Any]:
    pid = running.pid("worker")
    began, spent = time.monotonic(), _cpu(pid)
    _carry(producer, count)
    return _row("runwright worker", count, time.monotonic() - began, _cpu(pid) - spent)


def _bare_row(url: str, count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.bare", url, str(count), str(AT_ONCE)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    row = _row("bare asyncio script, stock client", count, float(told[0]), float(told[1]))
    return {**row, "requests_per_run": _counters(url)["requests"] / count}


def _row(name: str, count: int, seconds: float, cpu: float) -> dict[str, Any]:
    return {"name": name, "runs_per_second": count / seconds, "cpu_ms_per_run": cpu * 1000 / count}


def _carry(producer: Producer, count: int) -> None:
    """Submit so many runs at once and return when all have completed."""
    with producer.database.write() as connection:
        batch_id = batches.create(connection, "bench", "bench")
        asked = [runs.RunRequest(assistant="bench", input=bare.TEXT, batch_id=batch_id) for _ in range(count)]
        runs.accept(producer, connection, asked)
    producer.doorbell.ring(["default"])
    deadline = time.monotonic() + 60 + count
    while (completed := _completed(producer.database, batch_id)) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"only {completed} of {count} runs completed")
        time.sleep(0.05)


def _completed(database: Database, batch_id: str) -> int:
    with database.read() as connection:
        return batches.progress(connection, batch_id).completed


def _cpu(pid: int) -> float:
    """Return the CPU seconds of a process, all its threads (/proc/PID/stat, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _counters(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/_simulator/counters?by_run=0", timeout=10) as answer:
        return dict(json.load(answer))


def _reset(url: str) -> None:
    request = urllib.request.Request(f"{url.removesuffix('/v1')}/_simulator/reset", method="POST", data=b"{}")
    urllib.request.urlopen(request, timeout=10).close()


def _print(rows: list[dict[str, Any]], count: int) -> None:
    table = Table("", "runs/s", "CPU ms/run", "requests/run", title=f"{count} runs, provider latency 0, 1 tool call")
    for row in rows:
        numbers = (row["runs_per_second"], row["cpu_ms_per_run"], row["requests_per_run"])
        table.add_row(row["name"], *(f"{number:.1f}" for number in numbers))
    Console().print(table)


if __name__ == "__main__":
    main()
