"""One measurement: so many runs through a worker, or through a rival, and what they cost."""

import json
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from celery import Celery
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.pool import NullPool

from benchmarks import accounting
from benchmarks.machine import calibrate
from benchmarks.provider import MODEL
from benchmarks.rivals.track import TEXT, Track
from benchmarks.servers import Ground, remove, results_of
from tasks.runs import RunRequest, accept
from tests import counting
from worker.models import Attempt, Message, Run, ToolCall
from worker.producer import Producer
from worker.settings import Settings
from worker.store import assistants, batches

REQUESTS = 64  # open at once, of the worker and of every script
CONFIG = {"model": MODEL, "tools": ["calculate"]}
_WARM = 20
_SETTLE = 0.3

Row = dict[str, Any]


class Unfinished(Exception):
    """Not all runs ended within their time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is carried: so many runs at once, of so much latency at the provider."""

    runs: int
    latency: float = 0.0
    spread: float = 0.0
    pause: float = 0.02
    limit: float = 120.0


def worker(
    ground: Ground,
    kind: str,
    load: Load,
    *,
    count: int = 1,
    part: float | None = None,
    counts: Path | None = None,
    **settings: object,
) -> Row:
    """Carry the load with real workers on a fresh database, each of which has no more than this `part` of a core.

    What they ask of the database is counted in the folder `counts`, if one is given.
    """
    with ground.database(kind) as url:
        environ = ground.environ(url, **{"request_limit": REQUESTS, "max_in_flight": max(1000, load.runs), **settings})
        environ |= counting.environ(counts) if counts else {}
        producer = Producer(Settings.from_env(environ))
        try:
            with producer.database.write() as connection:
                assistants.apply(connection, "bench", CONFIG)
            with ground.workers(count, environ, part) as workers:
                ground.reset()
                _carry(producer, Load(runs=_WARM))
                ground.reset(load.latency, load.spread)
                pids, before = [each.pid for each in workers], counting.total(counts) if counts else Counter()
                with measured(pids, load, lambda: seen(ground, url)) as row:
                    batch = _carry(producer, load)
                if counts:
                    asked = counting.total(counts) - before
                    row["driver_cpu_ms_per_run"] = asked["driver_us"] / 1000 / load.runs
                ends = {run: at for each in workers for run, at in _committed(each.log_file).items()}
                row |= _told(ground.counters(), ends, load)
                row |= {
                    "checks": _checks(producer, batch, load) + row["checks"],
                    "largest_share": _largest_share(producer, batch, count),
                }
                return row
        finally:
            producer.database.close()


def script(ground: Ground, name: str, load: Load) -> Row:
    """Carry the load with one of the rival scripts."""
    folder = ground.folder / f"{name}-{uuid.uuid4().hex[:8]}"
    track = Track(folder, ground.provider_url, load.runs, REQUESTS, load.pause)
    ground.reset()
    with ground.script(name, track) as process:
        ground.reset(load.latency, load.spread)
        with measured([process.pid], load, lambda: seen(ground)) as row:
            (folder / "go").touch()
            until((folder / "ends.json").exists, load, lambda: f"{name} has not ended")
        row |= _told(ground.counters(), results_of(folder), load)
    remove(folder)
    return row


def tutorial(ground: Ground, pool: str, slots: int, load: Load) -> Row:
    """Carry the load with the loop that tutorials show, as a Celery task."""
    ends = ground.folder / f"tutorial-{uuid.uuid4().hex[:8]}.ends"
    ends.touch()
    app = Celery(broker=ground.tutorial_environ(ends)["TUTORIAL_BROKER"])
    app.conf.task_ignore_result = True
    ground.reset()
    with ground.tutorial(pool, slots, ends) as process, app.connection_for_write() as connection:

        def send(names: list[str]) -> None:
            for name in names:
                app.send_task("tutorial.run", [name], connection=connection)

        send([f"warm-{number}" for number in range(2 * slots)])
        process.wait_for(lambda: len(_lines(ends)) == 2 * slots, "its first runs", load.limit)
        ends.write_text("")
        ground.reset(load.latency, load.spread)
        with measured([process.pid], load, lambda: seen(ground)) as row:
            send([f"run-{number}" for number in range(load.runs)])
            until(lambda: len(_lines(ends)) == load.runs, load, lambda: f"only {len(_lines(ends))} runs ended")
        row |= _told(ground.counters(), {name: float(at) for name, at in _lines(ends)}, load)
    return row


def _lines(file: Path) -> list[list[str]]:
    return [line.split() for line in file.read_text().splitlines()]


@contextmanager
def measured(pids: list[int], load: Load, look: Callable[[], dict[str, float]]) -> Iterator[Row]:
    """Account for what the process trees use while the block runs."""
    row: Row = {"runs": load.runs, "latency": load.latency, "calibration_ms": round(calibrate(), 1)}
    spent = sum(map(accounting.cpu, pids))
    row["rss_before_mib"] = round(sum(map(accounting.rss, pids)), 1)
    seconds = 0.25 if load.latency else 1.0
    with accounting.sampled(pids[0], look, seconds) as samples:
        yield row
        time.sleep(_SETTLE)  # what trails the last commit: notices, events
        row["cpu_ms_per_run"] = (sum(map(accounting.cpu, pids)) - spent) * 1000 / load.runs
        row["pss_mib"] = round(sum(map(accounting.pss, pids)), 1)
    peaks = [max(samples.peak_rss(), accounting.rss(pid)) if pid == pids[0] else accounting.rss(pid) for pid in pids]
    row["peak_rss_mib"] = round(sum(peaks), 1)
    row["database_connections"] = samples.peak("database_connections") or None
    row["waiting_cpu_ms_per_minute"] = _waiting(samples, load)


def _waiting(samples: accounting.Samples, load: Load) -> float | None:
    """Return the CPU milliseconds per run and minute while at least nine in ten of the runs were in flight."""
    full = [row for row in samples.rows if row.seen.get("in_flight", 0) >= 0.9 * load.runs]
    if len(full) < 2 or full[-1].at - full[0].at < 5:
        return None
    return (full[-1].cpu - full[0].cpu) * 1000 / load.runs / (full[-1].at - full[0].at) * 60


def seen(ground: Ground, url: str = "") -> dict[str, float]:
    """Return how many runs the provider has in flight, and how many connections the database."""
    found = {"in_flight": float(ground.counters(ends=False)["in_flight"])}
    if url.startswith("postgresql"):
        # The benchmark's own are told by their name.
        engine = create_engine(url, poolclass=NullPool, connect_args={"application_name": "benchmark"})
        others = "datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'benchmark'"
        with engine.connect() as connection:
            found["database_connections"] = connection.scalar(
                text(f"SELECT count(*) FROM pg_stat_activity WHERE {others}")
            )
    return found


def _carry(producer: Producer, load: Load) -> str:
    """Submit the runs at once and return their batch when all have ended."""
    with producer.database.write() as connection:
        batch = batches.create(connection, "bench", "bench")
        asked = [RunRequest(assistant="bench", input=TEXT, batch_id=batch) for _ in range(load.runs)]
        accept(producer, connection, asked)
    producer.doorbell.ring(["default"])

    def left() -> int:
        with producer.database.read() as connection:
            waiting = select(func.count()).where(Run.batch_id == batch, Run.finished_at.is_(None))
            return int(connection.execute(waiting).scalar_one())

    until(lambda: not left(), load, lambda: f"{left()} of {load.runs} runs have not ended")
    return batch


def until(condition: Callable[[], bool], load: Load, what: Callable[[], str]) -> None:
    """Wait for a condition; raises Unfinished with `what` is not so when the load's limit has passed."""
    deadline = time.monotonic() + load.limit
    while not condition():
        if time.monotonic() > deadline:
            raise Unfinished(f"{what()} after {load.limit:g} s")
        time.sleep(0.1)


def _committed(log: Path) -> dict[str, float]:
    """Return when the worker said of each run that it has ended: it does so after the commit."""
    ends = {}
    for line in log.read_text().splitlines():
        if '"run.ended"' in line:
            told = json.loads(line)
            ends[told["run_id"]] = datetime.fromisoformat(told["timestamp"]).timestamp()
    return ends


def _told(counters: Row, ends: dict[str, float], load: Load) -> Row:
    """Return what the provider's counters and the times of the ends come to."""
    late = sorted(ends[run] - at for run, at in counters["ends"].items() if run in ends)
    checks = [] if counters["responses_per_run"] == {"2": load.runs} else [f"{counters['responses_per_run']} responses"]
    checks += [f"{counters['overlaps']} overlaps"] if counters["overlaps"] else []
    checks += [] if len(late) == load.runs else [f"the end of {load.runs - len(late)} runs is not known"]
    seconds = max(ends[run] for run in counters["ends"] if run in ends) - counters["first_request"] if late else None
    return {
        "seconds": seconds,
        "runs_per_second": load.runs / seconds if seconds else None,
        "requests_per_run": counters["requests"] / load.runs,
        "requests_by_kind": counters["by_kind"],
        "provider_cpu_ms_per_request": counters["cpu"] * 1000 / counters["requests"],
        "provider_connections": counters["connections"],
        "max_in_flight": counters["max_in_flight"],
        "end_to_commit_p50": statistics.median(late) if late else None,
        "end_to_commit_p99": late[int(len(late) * 0.99)] if late else None,
        "end_to_commit": [round(late[int(len(late) * share / 100)], 4) for share in range(100)] if late else [],
        "checks": checks,
    }


def _checks(producer: Producer, batch: str, load: Load) -> list[str]:
    """Return what is wrong in the database: each run has one answer, one tool call that ended, one attempt."""
    of_batch = select(Run.id).where(Run.batch_id == batch)
    expected = {
        "completed": select(func.count()).where(
            Run.batch_id == batch, Run.status == "completed", Run.output_text != ""
        ),
        "answers": select(func.count()).where(Message.run_id.in_(of_batch), Message.role == "assistant"),
        "tool calls": select(func.count()).where(ToolCall.run_id.in_(of_batch), ToolCall.output.is_not(None)),
        "attempts": select(func.count()).where(Attempt.run_id.in_(of_batch)),
    }
    with producer.database.read() as connection:
        found = {name: connection.execute(query).scalar_one() for name, query in expected.items()}
    return [f"{number} {name} of {load.runs} runs" for name, number in found.items() if number != load.runs]


def _largest_share(producer: Producer, batch: str, count: int) -> float | None:
    """Return the percentage of the runs that one of several workers carried, the one with most."""
    of_batch = select(Run.id).where(Run.batch_id == batch)
    counted = select(func.count()).where(Attempt.run_id.in_(of_batch)).group_by(Attempt.worker)
    with producer.database.read() as connection:
        shares = list(connection.execute(counted).scalars())
    return 100 * max(shares) / sum(shares) if count > 1 else None
