"""What a run costs in counts, which no slow machine changes: requests, statements, commits, connections."""

import json
import os
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tasks import runs
from tests import counting
from tests.servers import Process, Simulator, Stack, running, stack
from worker.lifecycle import Status
from worker.settings import Settings

AT_ONCE = 16
RUNS = 50
# The most that one run with one tool call may cost, here of 50 at once; tighten them when it costs less.
REQUESTS = {"POST conversations": 1, "POST responses": 2, "GET responses/{id}": 2}
MOST = {"statements": 8.0, "commits": 1.0}
WORKERS_OWN = 3  # connections beside those of the engine and of the Celery tasks: lease and health


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[str]:
    """Return the URL of the benchmarks' provider, whose responses are ready at once."""
    ready = tmp_path / "provider.url"
    command = [sys.executable, "-m", "benchmarks.provider", str(ready)]
    with running(Process(command, tmp_path / "provider.log", os.environ)) as process:
        process.wait_for(ready.exists, "the provider")
        yield ready.read_text()


def counted(provider: str) -> dict[str, Any]:
    door = f"{provider.removesuffix('/v1')}/_provider/counters"
    with urllib.request.urlopen(door, timeout=10) as answer:
        return dict(json.load(answer))


@pytest.fixture
def there(tmp_path: Path, database_url: str, redis_url: str, simulator: Simulator) -> Iterator[Stack]:
    """Return servers of this test's own."""
    with stack(tmp_path, database_url, redis_url, simulator) as servers:
        yield servers


def test_a_run_costs_so_many_requests_statements_commits_and_connections(
    there: Stack, provider: str, database_url: str, tmp_path: Path
) -> None:
    """One conversation, two creates and two looks; the database is asked no more often than the bounds say."""
    there.assistant("clerk", tools=["calculate"])
    folder = tmp_path / "counts"
    changes = {"OPENAI_BASE_URL": provider, "RUNWRIGHT_REQUEST_LIMIT": str(AT_ONCE), **counting.environ(folder)}
    with there.worker("--without-mingle", "--without-gossip", **changes):
        first = runs.submit(assistant="clerk", input="What is 12*7+3?")
        assert first.wait(30).status is Status.COMPLETED
        before, sent = counting.total(folder), Counter(counted(provider)["by_kind"])
        asked = [runs.RunRequest(assistant="clerk", input="What is 12*7+3?") for _ in range(RUNS)]
        handles = runs.submit_many(asked)
        assert {handle.wait(60).status for handle in handles} == {Status.COMPLETED}
        told = counted(provider)
        made = Counter(told["by_kind"]) - sent
        spent = counting.total(folder) - before
        assert made == {kind: RUNS * count for kind, count in REQUESTS.items()}
        assert told["responses_per_run"] == {"2": RUNS + 1}
        per_run = {name: count / RUNS for name, count in spent.items()}
        assert all(per_run[name] <= MOST[name] for name in MOST), per_run
        settings = Settings.from_env({})
        assert told["connections"] <= AT_ONCE
        if database_url.startswith("postgresql"):
            assert connections(database_url) <= 2 * settings.database_pool + WORKERS_OWN


def connections(url: str) -> int:
    """Count the connections to this database that are not ours."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        others = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
    return int(others[0]) if others else 0
