"""Starting a worker: what is wrong is said in one line with exit code 2; what runs is said in one line at boot."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis import Redis
from sqlalchemy import text

from tasks import runs
from tests.chaos.breakables import breakable_redis
from tests.nursery import Nursery
from tests.servers import ROOT, CeleryWorker, Stack, running
from worker import urls
from worker.lifecycle import Status
from worker.store.database import Database

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True, scope="module")


@dataclass(frozen=True)
class Start:
    """A start that must fail: what is changed in a good one, and what the line must say."""

    told: str
    options: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


STARTS = {
    "no broker": Start("REDIS_URL: not set and no embedded server is running", env={"REDIS_URL": ""}),
    "no key": Start("OPENAI_API_KEY: not set", env={"OPENAI_API_KEY": ""}),
    "a value that is none": Start("RUNWRIGHT_LEASE=soon: ", env={"RUNWRIGHT_LEASE": "soon"}),
    "a wrong database": Start("DATABASE_URL=mysql://…: accepted are", env={"DATABASE_URL": "mysql://u:hush-hush@h/d"}),
    "a typing error": Start("did you mean RUNWRIGHT_MAX_IN_FLIGHT?", env={"RUNWRIGHT_MAXINFLIGHT": "5"}),
    "no schema": Start("/empty.db; run `runwright migrate`", env={"DATABASE_URL": "sqlite:///{empty}"}),
    "a newer schema": Start("is newer than this version", env={"DATABASE_URL": "sqlite:///{newer}"}),
    "no such tool module": Start("no tool module 'not.there'", env={"RUNWRIGHT_TOOL_MODULES": "not.there"}),
    "a broken tool module": Start("RuntimeError: no boiler (broken.py:2)", env={"RUNWRIGHT_TOOL_MODULES": "broken"}),
    "the prefork pool": Start("--pool: only `threads`", ("--pool", "prefork")),
    "the solo pool": Start("--pool: only `threads`", ("--pool=solo",)),
    "a queue without our prefix": Start("did you mean runwright.bulk?", ("-Q", "bulk")),
}


@pytest.fixture(scope="module")
def endings(stack: Stack, nursery: Nursery) -> dict[str, subprocess.CompletedProcess[str]]:
    """Make every wrong start, some side by side, and return how each ended; the first one in a whole new process."""
    files = {name: stack.folder / f"{name}.db" for name in ("empty", "newer")}
    shutil.copy(stack.folder / "runwright.db", files["newer"])
    newer = Database(f"sqlite:///{files['newer']}")
    with newer.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    newer.close()
    (stack.folder / "broken.py").write_text('"""Tools that are not there."""\nraise RuntimeError("no boiler")\n')

    def end(start: Start) -> subprocess.CompletedProcess[str]:
        # Celery's warning about the superuser is not ours to count.
        env = {**stack.env, "PYTHONPATH": str(stack.folder), "PYTHONWARNINGS": "ignore", **start.env}
        env["DATABASE_URL"] = env["DATABASE_URL"].format(**files)
        program = ["celery", "-A", "worker.app", "worker", *start.options]
        if start is not STARTS["no broker"]:
            return nursery.run(*program, env=env)
        whole = [sys.executable, "-m", *program]
        return subprocess.run(whole, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)

    with ThreadPoolExecutor(3) as side_by_side:
        return dict(zip(STARTS, side_by_side.map(end, STARTS.values()), strict=True))


@pytest.mark.parametrize("name", STARTS)
def test_a_wrong_start_ends_with_one_line(endings: dict[str, subprocess.CompletedProcess[str]], name: str) -> None:
    """Exit code 2, and nothing but the line that names what is wrong: no traceback, no secret."""
    ended = endings[name]
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("runwright: ")
    assert STARTS[name].told in line
    assert "hush-hush" not in line
    assert not ended.stdout.strip()


@pytest.fixture(scope="module")
def worker(stack: Stack) -> Iterator[CeleryWorker]:
    """Run a worker with options that mean nothing here, on a queue of its own, behind a URL with a password."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        # Never connected to: the line at boot is written before the consumer looks for the broker.
        broker = f"redis://:hush-hush@127.0.0.1:{closed.getsockname()[1]}/0"
    options = ["-Q", "runwright.bulk", "--time-limit=30", "--autoscale=8,2", "--max-tasks-per-child=9"]
    env = {**stack.env, "REDIS_URL": broker, "RUNWRIGHT_MAX_IN_FLIGHT": "7"}
    with running(CeleryWorker(stack.folder, env, *options)) as process:
        assert isinstance(process, CeleryWorker)
        process.wait_for(lambda: '"worker_started"' in process.log(), "the line at boot")
        yield process


def logged(worker: CeleryWorker, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in worker.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_the_line_at_boot_says_what_runs_here(worker: CeleryWorker, stack: Stack) -> None:
    """Pool, queues, in-flight limit, database and broker; the password is nowhere in the log."""
    (line,) = logged(worker, "worker_started")
    assert (line["pool"], line["queues"], line["max_in_flight"]) == ("threads", "bulk", 7)
    assert line["database"] == f"sqlite:///{stack.folder / 'runwright.db'}"
    assert re.fullmatch(r"redis://:\*\*\*@127\.0\.0\.1:\d+/0", line["broker"])
    assert "hush-hush" not in worker.log()
    assert stack.env["OPENAI_API_KEY"] not in worker.log()


def test_options_that_mean_nothing_here_are_said(worker: CeleryWorker) -> None:
    """Each names the setting of ours that means it."""
    said = {line["option"]: line["instead"] for line in logged(worker, "option_without_effect")}
    assert set(said) == {"--time-limit", "--autoscale", "--max-tasks-per-child"}
    assert "RUNWRIGHT_RUN_TIMEOUT" in said["--time-limit"]
    assert said["--autoscale"] == "RUNWRIGHT_MAX_IN_FLIGHT"
    assert "isolate=True" in said["--max-tasks-per-child"]


def test_a_worker_claims_only_its_own_queues(worker: CeleryWorker, stack: Stack) -> None:
    """A run of another queue stays where it is; those of `bulk` go on even without a broker."""
    assert worker.popen.poll() is None
    stack.assistant("clerk")
    other = runs.submit(assistant="clerk", input="[[say other]]")
    mine = [runs.submit(assistant="clerk", input="[[say mine]]", queue="bulk") for _ in range(2)]
    assert {handle.wait(20).output_text for handle in mine} == {"mine"}
    assert (other.status(), other.result().attempts) == (Status.QUEUED, 0)


def test_a_worker_that_stops_without_its_broker_ends_well(stack: Stack, tmp_path: Path) -> None:
    """Expected: exit code 0 although Redis is gone, since the runs are let go in the database; no traceback."""
    with breakable_redis(tmp_path) as redis, stack.worker(REDIS_URL=redis.url) as worker:
        redis.kill()
        worker.wait_for(lambda: "Cannot connect to redis" in worker.log(), "the loss to be noticed")
        code = worker.stop()
        assert (code, "Traceback" in worker.log().partition("Cannot connect")[2]) == (0, False), worker.log()


def test_a_worker_that_holds_a_message_outlives_its_broker(stack: Stack, tmp_path: Path) -> None:
    """Expected: it goes on and finds the next Redis, though a message that it had taken was not acknowledged yet."""
    database = Database(os.environ["DATABASE_URL"])
    with breakable_redis(tmp_path) as redis, stack.worker("--without-mingle", REDIS_URL=redis.url) as worker:
        with Celery("shop", broker=redis.url, set_as_current=False) as shop, database.write():
            # Its task waits for the lock that we hold.
            shop.send_task("runs.submit", kwargs={"assistant": "clerk", "input": "x"}, queue="runwright.default")
            with Redis.from_url(urls.redis_client_url(redis.url)) as client:
                worker.wait_for(lambda: client.hlen("unacked") == 1, "the message to be taken")
            redis.kill()
            worker.wait_for(lambda: "Cannot connect to redis" in worker.log(), "the loss to be noticed")
        redis.start()
        worker.wait_for(lambda: worker.log().count("Connected to redis") == 2, "the worker to be back", 60)
        assert worker.stop() == 0, worker.log()
    database.close()


def test_a_worker_whose_engine_dies_does_not_end_well(worker: CeleryWorker, stack: Stack) -> None:
    """Expected: its exit code is not 0, so that a supervisor starts it again; the last test, for it ends the worker."""
    database = Database(stack.env["DATABASE_URL"])
    with database.write() as connection:
        connection.execute(text("ALTER TABLE runwright_pauses RENAME TO gone"))
    database.close()
    assert worker.popen.wait(30) == 1
    assert logged(worker, "engine_died")
