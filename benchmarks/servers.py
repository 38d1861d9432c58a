"""The ground of every measurement: servers on one core, and what is measured on the other."""

import contextlib
import json
import os
import shutil
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from benchmarks.machine import core_of, held_to
from benchmarks.rivals.track import Track
from tests.postgres import postgres
from tests.servers import CeleryWorker, Process, running, valkey
from worker import urls
from worker.settings import environment
from worker.store.database import Database
from worker.store.migrating import migrate

_DURABLE = ("max_connections=200",)  # everything else as it comes: fsync is on


class Ground:
    """A fast provider, a Redis, and databases as they are asked for."""

    def __init__(self, folder: Path, redis_url: str, provider_url: str, ends: contextlib.ExitStack) -> None:
        self.folder = folder
        self.redis_url = redis_url
        self.provider_url = provider_url
        self._ends = ends
        self._postgres: str | None = None

    def counters(self, *, ends: bool = True) -> dict[str, Any]:
        """Return what the provider has counted since its reset, with the end of each run if wanted."""
        with urllib.request.urlopen(self._door(f"counters?ends={int(ends)}"), timeout=30) as answer:
            return dict(json.load(answer))

    def reset(self, latency: float = 0.0, spread: float = 0.0) -> None:
        """Let the provider forget everything and take on a latency."""
        asked = json.dumps({"latency": latency, "spread": spread}).encode()
        urllib.request.urlopen(urllib.request.Request(self._door("reset"), data=asked), timeout=30).close()

    def _door(self, name: str) -> str:
        return f"{self.provider_url.removesuffix('/v1')}/_provider/{name}"

    @contextlib.contextmanager
    def database(self, kind: str) -> Iterator[str]:
        """Give the URL of a fresh migrated database: sqlite or postgresql."""
        name = f"bench_{uuid.uuid4().hex[:12]}"
        with core_of("servers"), contextlib.ExitStack() as ends:
            url = f"sqlite:///{self.folder / name}.db"
            if kind == "postgresql":
                self._postgres = self._postgres or self._ends.enter_context(postgres(self.folder, _DURABLE))
                server = ends.enter_context(psycopg.connect(self._postgres, autocommit=True))
                server.execute(f"CREATE DATABASE {name}".encode())
                ends.callback(server.execute, f"DROP DATABASE {name} WITH (FORCE)".encode())
                named = make_url(self._postgres).set(drivername="postgresql+psycopg", database=name)
                url = named.render_as_string(hide_password=False)
            database = Database(url)
            migrate(database)
            database.close()
            yield url
            for file in self.folder.glob(f"{name}.db*"):
                file.unlink()

    def environ(self, database_url: str, **settings: object) -> dict[str, str]:
        """Return the environment of a worker with these settings."""
        return {
            **environment(with_settings=False),
            "RUNWRIGHT_HOME": str(self.folder / "home"),
            "DATABASE_URL": database_url,
            "REDIS_URL": self.redis_url,
            "OPENAI_BASE_URL": self.provider_url,
            "OPENAI_API_KEY": "simulated",
            "RUNWRIGHT_LOG_FORMAT": "json",
            **{f"RUNWRIGHT_{name.upper()}": str(value) for name, value in settings.items()},
        }

    @contextlib.contextmanager
    def workers(self, count: int, environ: dict[str, str], part: float | None = None) -> Iterator[list[CeleryWorker]]:
        """Run workers until the block ends; each has no more than this part of a core, if one is given."""
        with contextlib.ExitStack() as ends:
            with core_of("measured"):
                workers = [CeleryWorker(self.folder, environ) for _ in range(count)]
            for worker in workers:
                ends.enter_context(running(worker))
                if part is not None:
                    ends.enter_context(held_to(part, worker.pid))
            for worker in workers:
                worker.wait_until_ready()
            yield workers
            for worker in workers:
                worker.stop(seconds=90)

    @contextlib.contextmanager
    def script(self, name: str, track: Track) -> Iterator[Process]:
        """Run one of the rival scripts until it is ready and waits for its word."""
        track.folder.mkdir()
        values = [track.url, track.runs, track.requests, track.pause]
        command = [sys.executable, "-m", f"benchmarks.rivals.{name}", str(track.folder), *map(str, values)]
        with core_of("measured"):
            process = Process(command, track.folder / "log", environment(with_settings=False))
        with running(process):
            process.wait_for((track.folder / "ready").exists, "the script")
            yield process

    @contextlib.contextmanager
    def tutorial(self, pool: str, slots: int, ends: Path) -> Iterator[Process]:
        """Run the tutorial's Celery worker; it is ready when it has carried its first runs."""
        environ = self.tutorial_environ(ends)
        options = ["-P", pool, "-c", str(slots), "--without-gossip", "--without-mingle"]
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.rivals.tutorial", "worker", *options]
        log = ends.with_suffix(".log")
        with core_of("measured"):
            process = Process([*command, "-n", f"{uuid.uuid4().hex[:8]}@localhost"], log, environ)
        with running(process):
            yield process
            process.stop()

    def tutorial_environ(self, ends: Path) -> dict[str, str]:
        """Return what leads the tutorial's worker; its queue on the same broker is Celery's default."""
        return {
            **environment(with_settings=False),
            "TUTORIAL_BROKER": urls.broker_url(self.redis_url),
            "TUTORIAL_PROVIDER": self.provider_url,
            "TUTORIAL_ENDS": str(ends),
        }


@contextlib.contextmanager
def ground(folder: Path) -> Iterator[Ground]:
    """Start a Redis and the provider; PostgreSQL is started when somebody asks for it."""
    os.environ.update(NO_PROXY="127.0.0.1,localhost", no_proxy="127.0.0.1,localhost")
    with contextlib.ExitStack() as ends, core_of("servers"):
        redis_url = ends.enter_context(valkey(folder))
        ready = folder / "provider.url"
        command = [sys.executable, "-m", "benchmarks.provider", str(ready)]
        process = ends.enter_context(running(Process(command, folder / "provider.log", os.environ)))
        process.wait_for(ready.exists, "the provider")
        yield Ground(folder, redis_url, ready.read_text(), ends)


def results_of(folder: Path) -> dict[str, float]:
    """Return when each run of a script ended, as it wrote it down."""
    return dict(json.loads((folder / "ends.json").read_text()))


def remove(folder: Path) -> None:
    """Take a rival's folder away."""
    shutil.rmtree(folder, ignore_errors=True)
