"""python -m tests.chaos: thousands of runs under fire, then what happened, seen from the outside."""

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy.engine import make_url

from tests.chaos import recovery
from tests.chaos.audit import Audit
from tests.chaos.breakables import Postgres, breakable_postgres, breakable_redis
from tests.chaos.effects import TOOLS
from tests.chaos.fight import FROZEN, Fight, Plan, Tally
from tests.nursery import Nursery
from tests.servers import REAPER, is_foreign, simulator, stack
from worker.backends.places import PROTOCOLS
from worker.store.database import Database
from worker.store.migrating import migrate

_POOL = 3  # connections of each worker's engine and of its Celery tasks: PostgreSQL has 300 for all


def options(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=1000, help="SIGKILLs of workers; the other faults follow from it")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--threads", type=int, help="conversations; not given: one for 20 runs")
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--backend", choices=list(PROTOCOLS), default="responses", help="RUNWRIGHT_BACKEND")
    parser.add_argument("--lease", type=float, default=10.0, help="RUNWRIGHT_LEASE in seconds")
    parser.add_argument("--latency", default="0.5:3", help="seconds that a response takes, as the simulator reads them")
    parser.add_argument("--on-unknown", choices=["fail", "create"], default="fail", help="RUNWRIGHT_ON_UNKNOWN")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=120.0, help="what has not ended by then counts as lost")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    return parser.parse_args(argv)


def plan_of(given: argparse.Namespace) -> Plan:
    """Derive how many faults of each kind there are."""
    kills = given.kills
    return Plan(
        runs=given.runs,
        kills=kills,
        workers=given.workers,
        lease=given.lease,
        minutes=given.minutes,
        seed=given.seed,
        threads=given.threads or max(10, given.runs // 20),
        stops=max(1, kills // 10),
        freezes=max(1, kills // 50),
        redis_losses=max(1, kills // 100),
        database_halts=max(1, kills // 250),
        database_crashes=max(1, kills // 250),
    )


@contextlib.contextmanager
def _database(folder: Path, kind: str) -> Iterator[tuple[str, Postgres | None]]:
    """Yield the URL of a migrated database, and the server to break."""
    with contextlib.ExitStack() as servers:
        server, url = None, f"sqlite:///{folder}/runwright.db"
        if kind == "postgresql":
            server = servers.enter_context(breakable_postgres(folder))
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute("CREATE DATABASE chaos")
            named = make_url(server.url).set(drivername="postgresql+psycopg", database="chaos")
            url = named.render_as_string(hide_password=False)
        database = Database(url)
        migrate(database)
        database.close()
        yield url, server


def fight(given: argparse.Namespace, folder: Path, show: Callable[[int, Counter[str]], None]) -> dict[str, Any]:
    """Run everything and return the figures; `faults` holds what must not be."""
    with contextlib.ExitStack() as servers:
        # The nursery first: a process that forks should have seen none of what follows.
        nursery = servers.enter_context(Nursery(folder))
        redis = servers.enter_context(breakable_redis(folder))
        url, database = servers.enter_context(_database(folder, given.database))
        stateless = str(given.backend == "responses-stateless").lower()
        options = ("--latency", given.latency, "--seed", str(given.seed), "--stateless", stateless)
        provider = servers.enter_context(simulator(folder, os.environ, *options))
        there = servers.enter_context(stack(folder, url, redis.url, provider))
        there.assistant("clerk", tools=TOOLS)
        plan = plan_of(given)
        env = {
            **there.env,
            "RUNWRIGHT_BACKEND": given.backend,
            "RUNWRIGHT_LEASE": str(given.lease),
            "RUNWRIGHT_ON_UNKNOWN": given.on_unknown,
            # A frozen worker may send its create when it wakes.
            "RUNWRIGHT_ADOPTION_WAIT": str(2 * _longest(given.latency) + 10 + FROZEN * given.lease),
            "RUNWRIGHT_MAX_IN_FLIGHT": str(max(10, 2 * plan.threads // plan.workers)),
            "RUNWRIGHT_CLAIM_CHUNK": "20",
            "RUNWRIGHT_DATABASE_POOL": str(_POOL),
            "RUNWRIGHT_TOOL_MODULES": "tests.chaos.effects",
            "RUNWRIGHT_TOOL_DATA": str(folder),
        }
        course = Fight(plan, nursery=nursery, env=env, redis=redis, database=database, show=show)
        course.run()
        audit = Audit(course.expected, provider.counters(), folder, given.backend)
        return figures(plan, course.tally, audit)


def _longest(latency: str) -> float:
    return float(latency.rpartition(":")[2])


def figures(plan: Plan, tally: Tally, audit: Audit) -> dict[str, Any]:
    """Return what was done and what came of it."""
    waits = recovery.of(tally.bereft)
    clear = [wait for one, wait in waits.items() if not _overlaps(one.at.timestamp(), wait.seconds, tally.away)]
    return {
        **{kind: tally.done[kind] for kind in ("kills", "hand-overs", "freezes", "Redis losses")},
        **{kind: tally.done[kind] for kind in ("database halts", "database crashes")},
        "starts refused": tally.done["starts refused"],
        "runs": plan.runs,
        "threads": plan.threads,
        "workers": plan.workers,
        "lease": plan.lease,
        "ended": audit.statuses(),
        "executions of tools": audit.executions().total(),
        "unknown outcomes": len(audit.unknown()),
        "adopted": audit.adopted(),
        "asked for again": audit.reissued(),
        "hand-over seconds": _spread(tally.stop_seconds),
        "recovery seconds": _spread([wait.seconds for wait in clear]),
        "from the kill to the reaper": _spread([wait.to_reaped for wait in clear]),
        "from the reaper to the claim": _spread([wait.to_claimed for wait in clear]),
        "recovery seconds over outages": _spread([wait.seconds for wait in waits.values() if wait not in clear]),
        "seconds": round(tally.seconds, 1),
        "faults": {**audit.faults(), "workers that ended otherwise": tally.unclean},
    }


def _overlaps(at: float, wait: float, away: list[tuple[float, float]]) -> bool:
    return any(began <= at + wait and at <= ended for began, ended in away)


def _spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    parts = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    shown = {name: round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 2) for name, part in parts.items()}
    return {"count": len(ordered), **shown}


def report(found: dict[str, Any], console: Console) -> bool:
    """Print the figures and tell whether nothing is there that must not be."""
    table = Table("", "", title="Under fire", title_justify="left")
    for name, value in found.items():
        if name != "faults":
            told = ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else str(value)
            table.add_row(name, told)
    for kind, which in found["faults"].items():
        table.add_row(kind, f"[red]{len(which)}[/red]" if which else "0")
    console.print(table)
    for kind, which in found["faults"].items():
        for one in which[:20]:
            console.print(f"[red]{kind}[/red]: {one}")
    return not any(found["faults"].values())


def main() -> int:
    """Return 0 where every promise was kept."""
    given = options()
    for variable in filter(is_foreign, list(os.environ)):
        del os.environ[variable]
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.chmod(0o755)
    os.environ.update(RUNWRIGHT_HOME=str(folder / "home"), NO_PROXY="127.0.0.1,localhost")
    console = Console()
    columns = (
        TextColumn("runs"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[done]}"),
    )
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("runs", total=given.runs, done="")

            def show(ended: int, done: Counter[str]) -> None:
                progress.update(task, completed=ended, done=", ".join(f"{n} {kind}" for kind, n in done.items()))

            found = fight(given, folder, show)
        kept = report(found, console)
    finally:
        REAPER.close()
    if given.json:
        given.json.write_text(json.dumps(found, indent=2))
    if kept:
        shutil.rmtree(folder)
    else:
        console.print(f"The logs are in {folder}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
