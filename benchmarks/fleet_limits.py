"""`python -m benchmarks.fleet_limits`: four workers under one limit of the provider, minute by minute."""

import argparse
import contextlib
import json
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks import runs
from tasks.cli import stack
from worker.producer import Producer
from worker.settings import environment
from worker.store import assistants, batches, reading

MODEL = "gpt-5-mini"
RESULTS = Path(__file__).parent / "fleet_limits.json"
ANSWER = 100  # tokens, which is what each request counts for
_BACKLOG = 1.3  # so much more work than the limit lets through in the time


def main() -> None:
    """Measure, print, and write fleet_limits.json."""
    given = _arguments()
    with tempfile.TemporaryDirectory(prefix="runwright-bench-") as folder, _fleet(Path(folder), given) as running:
        minutes = _minutes(running.environ["OPENAI_BASE_URL"], given)
    kind = running.settings().database_url.partition(":")[0]
    told = {**vars(given), "database": kind, "minutes": minutes, "after_the_first": _sum(minutes[1:] or minutes)}
    RESULTS.write_text(json.dumps(told, indent=2) + "\n")
    _print(told)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet_limits", description=__doc__)
    parser.add_argument("--limit", type=int, default=600, help="requests per minute that the provider allows (600)")
    parser.add_argument("--burst", type=float, default=1.0, help="seconds' worth of it that may go at once (1)")
    parser.add_argument("--tokens", type=int, default=0, help="tokens per minute that it allows; 100 a request (any)")
    parser.add_argument("--workers", type=int, default=4, help="worker processes (4)")
    parser.add_argument("--minutes", type=int, default=3, help="minutes to measure, at least 2 (3)")
    parser.add_argument("--database", default="", help="an empty database of PostgreSQL, in place of SQLite")
    given = parser.parse_args()
    given.creates = min(given.limit, given.tokens // ANSWER or given.limit)
    return given


@contextlib.contextmanager
def _fleet(home: Path, given: argparse.Namespace) -> Iterator[stack.Stack]:
    """Start the servers and all workers, with more runs due than the limit lets through."""
    provider = {
        "SIMULATOR_REQUESTS_PER_MINUTE": str(given.limit),
        "SIMULATOR_TOKENS_PER_MINUTE": str(given.tokens),
        "SIMULATOR_LIMIT_BURST": str(given.burst),
        "SIMULATOR_LATENCY": "0.5:1.5",
    }
    environ = {**environment(with_settings=False), **provider, "DATABASE_URL": given.database}
    with stack.running(home, environ, simulate=True) as running, running.interrupts.breaking():
        producer = Producer(running.settings())
        for number in range(2, given.workers + 1):
            node = f"bench-{number}@%h"
            running.start(f"worker-{number}", "celery", "-A", "worker.app", "worker", "-n", node)
        running.wait_for("worker", lambda: _living(producer) == given.workers)
        count = round(given.creates * (given.minutes + 1) * _BACKLOG)
        with producer.database.write() as connection:
            assistants.apply(connection, "bench", {"model": MODEL, "max_output_tokens": ANSWER})
            batch_id = batches.create(connection, "bench", "bench")
            text = "[[say done]]"
            asked = [runs.RunRequest(assistant="bench", input=text, batch_id=batch_id) for _ in range(count)]
            runs.accept(producer, connection, asked)
        producer.doorbell.ring(["default"])
        yield running


def _living(producer: Producer) -> int:
    with producer.database.read() as connection:
        return len(reading.living_workers(connection))


def _minutes(url: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Read the provider's counters once a minute, from its first create on."""
    while not _counters(url)["granted"]:
        time.sleep(0.05)
    minutes: list[dict[str, Any]] = []
    before, began = _counters(url), time.monotonic()
    for minute in range(1, given.minutes + 1):
        time.sleep(max(0.0, began + 60 * minute - time.monotonic()))
        after, seconds = _counters(url), time.monotonic() - began - sum(one["seconds"] for one in minutes)
        told = {name: after[name] - before[name] for name in after}
        minutes.append({**told, "seconds": seconds, "of_the_limit": told["granted"] / (given.creates * seconds / 60)})
        before = after
    return minutes


def _counters(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/_simulator/counters?by_run=0", timeout=10) as answer:
        counted = json.load(answer)
    return {"granted": counted["limit_granted"], "refused": counted["limit_refused"]}


def _sum(minutes: list[dict[str, Any]]) -> dict[str, float]:
    granted, refused = (sum(one[name] for one in minutes) for name in ("granted", "refused"))
    share = sum(one["of_the_limit"] * one["seconds"] for one in minutes) / sum(one["seconds"] for one in minutes)
    return {
        "granted": granted,
        "refused": refused,
        "of_the_limit": share,
        "refused_share": refused / (granted + refused),
    }


def _print(told: dict[str, Any]) -> None:
    title = f"{told['workers']} workers, {told['creates']} creates a minute, burst of {told['burst']:g} s"
    table = Table("minute", "granted", "of the limit", "refused", title=title)
    for number, one in enumerate(told["minutes"], 1):
        table.add_row(str(number), str(one["granted"]), f"{one['of_the_limit']:.1%}", str(one["refused"]))
    rest = told["after_the_first"]
    refused = f"{rest['refused']} ({rest['refused_share']:.2%})"
    table.add_row("after the first", str(rest["granted"]), f"{rest['of_the_limit']:.1%}", refused)
    Console().print(table)


if __name__ == "__main__":
    main()
