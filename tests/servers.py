"""Real processes for the tests: each is waited for until it answers, and ended with the test."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from tests.reaper import Reaper
from worker import embedded
from worker.producer import producer
from worker.store import assistants

ROOT = Path(__file__).parent.parent
REAPER = Reaper()
T = TypeVar("T")
# Short waits: what the tests wait for is the provider's answer and the worker's work, not a pause between looks.
SOON = {
    "RUNWRIGHT_POLL_MIN": "0.05",
    "RUNWRIGHT_POLL_MAX": "0.3",
    "RUNWRIGHT_RETRY_MIN": "0.05",
    "RUNWRIGHT_RETRY_MAX": "0.5",
    "RUNWRIGHT_ADOPTION_WAIT": "2",
    "RUNWRIGHT_LOG_FORMAT": "json",
}
OURS = ("OPENAI_", "RUNWRIGHT_", "SIMULATOR_", "CELERY_", "PG")


def is_foreign(variable: str) -> bool:
    """Say whether a variable of this name could lead a test to somebody's key, database or Redis."""
    return variable.startswith(OURS) or variable in {"REDIS_URL", "DATABASE_URL"}


def wait_until(condition: Callable[[], T], what: str, seconds: float = 20.0) -> T:
    """Return the first true answer of a condition; AssertionError with `what` when the limit passes."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)
    return answer


class Child(Protocol):
    """What a test needs of a child process, as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...


class Process:
    """A child in a process group of its own, its output in a file."""

    popen: Child

    def __init__(self, arguments: list[str], log_file: Path, env: Mapping[str, str], **options: Any) -> None:
        self.log_file = log_file
        with log_file.open("ab") as output:
            self.popen = subprocess.Popen(
                arguments,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **{"cwd": ROOT, **options},
            )
        REAPER.tell("+", self.pid)

    @property
    def pid(self) -> int:
        return self.popen.pid

    def log(self) -> str:
        """Return everything that the process has written."""
        return self.log_file.read_text(errors="replace")

    def wait_for(self, condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
        """Wait for a condition; fail with the log when the process ends first or the limit passes."""

        def checked() -> Any:
            answer = condition()
            assert answer or self.popen.poll() is None, f"ended with {self.popen.returncode} before {what}"
            return answer

        try:
            return wait_until(checked, what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; its log:\n{self.log()}") from None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, not to its children."""
        with contextlib.suppress(ProcessLookupError):
            self.popen.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 30.0) -> int:
        """Ask the process to end and return its exit code; kill its whole group when the limit passes."""
        self.send(number)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {seconds:g} s of {number.name}; its log:\n{self.log()}") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """End the process and its children at once, as `kill -9` does."""
        if self.popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.popen.wait(10)
        REAPER.tell("-", self.pid)


@contextlib.contextmanager
def running(process: Process) -> Iterator[Process]:
    """End the process with the block, whatever state it is in."""
    try:
        yield process
    finally:
        process.kill()


@contextlib.contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """Run a Redis-protocol server of its own in this folder; the block gets its URL as Celery takes it."""
    server = embedded.start(folder)
    REAPER.tell("+", server.pid)
    try:
        yield server.url
    finally:
        server.stop()
        REAPER.tell("-", server.pid)


class Simulator:
    """The simulator in a process of its own, and its side doors."""

    def __init__(self, process: Process, url: str) -> None:
        self.process = process
        self.url = url

    def counters(self, *, by_run: bool = True) -> dict[str, Any]:
        """Return what it has counted since it started or was reset."""
        return self._call("GET", f"counters?by_run={int(by_run)}")

    def anomalies(self) -> dict[str, Any]:
        """Return the totals, and of the runs only those of which a step was carried out twice."""
        return self._call("GET", "counters?anomalies=1")

    def run(self, run_id: str) -> dict[str, Any]:
        """Return what it has counted of one run, and the background options of its creates."""
        return self._call("GET", f"runs/{run_id}")

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change latency, shares or seed while it runs."""
        return self._call("POST", "settings", changes)

    def reset(self) -> None:
        """Forget every response, conversation and count."""
        self._call("POST", "reset", {})

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url.removesuffix('/v1')}/_simulator/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return dict(json.load(answer))


@contextlib.contextmanager
def simulator(folder: Path, env: Mapping[str, str], *options: str) -> Iterator[Simulator]:
    """Run the simulator on a free port; options are those of `python -m simulator`."""
    ready = folder / f"simulator-{uuid.uuid4().hex[:8]}"
    arguments = [sys.executable, "-m", "simulator", "--port", "0", "--ready-file", str(ready), *options]
    with running(Process(arguments, ready.with_suffix(".log"), env)) as process:
        yield Simulator(process, process.wait_for(lambda: ready.exists() and ready.read_text(), "the simulator"))


class CeleryWorker(Process):
    """`celery -A worker.app worker` under a node name of its own."""

    def __init__(self, folder: Path, env: Mapping[str, str], *options: str) -> None:
        self.node = f"{uuid.uuid4().hex[:8]}@localhost"
        arguments = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "-n", self.node, *options]
        super().__init__(arguments, folder / f"{self.node}.log", env)

    def wait_until_ready(self) -> None:
        """Wait until it takes messages."""
        self.wait_for(lambda: f"{self.node} ready." in self.log(), "the worker")


Start = Callable[..., CeleryWorker]
"""Starts a worker; it is given a folder for its log, its environment and its options."""


class Stack:
    """A database, a Redis and a simulator, and the environment that leads workers to them."""

    def __init__(self, folder: Path, env: Mapping[str, str], simulator: Simulator, start: Start) -> None:
        self.folder = folder
        self.env = env
        self.simulator = simulator
        self._start = start

    def start(self, *options: str, **changes: str) -> CeleryWorker:
        """Start a worker on this stack, which is not ready yet; changes are further variables."""
        return self._start(self.folder, {**self.env, **changes}, *options)

    @contextlib.contextmanager
    def worker(self, *options: str, **changes: str) -> Iterator[CeleryWorker]:
        """Run a worker and wait until it is ready; the block may stop or kill it."""
        with self.workers(1, *options, **changes) as (worker,):
            yield worker

    @contextlib.contextmanager
    def workers(self, count: int, *options: str, **changes: str) -> Iterator[list[CeleryWorker]]:
        """Run several workers, started at the same time."""
        workers = [self.start(*options, **changes) for _ in range(count)]
        with contextlib.ExitStack() as ends:
            for worker in workers:
                ends.enter_context(running(worker))
            for worker in workers:
                worker.wait_until_ready()
            yield workers

    def assistant(self, name: str, **config: Any) -> str:
        """Make an assistant, or a new version of it; returns its name."""
        with producer().database.write() as connection:
            assistants.apply(connection, name, {"model": "gpt-4o-mini", **config})
        return name

    def provider_runs(self, run_id: str) -> int:
        """Return how many responses the simulator made for a run."""
        return int(self.simulator.counters()["by_run"].get(run_id, {"provider_runs": 0})["provider_runs"])


@contextlib.contextmanager
def stack(
    folder: Path, database_url: str, redis_url: str, simulator: Simulator, start: Start = CeleryWorker
) -> Iterator[Stack]:
    """Lead this process, as a producer, and the workers of the block, started so, to these servers."""
    leads = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "RUNWRIGHT_HOME": str(folder / "home")}
    provider = {"OPENAI_BASE_URL": simulator.url, "OPENAI_API_KEY": "sk-none-of-anybody"}
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in leads.items():
            patch.setenv(variable, value)
        producer.cache_clear()
        try:
            yield Stack(folder, {**os.environ, **provider, **SOON}, simulator, start)
        finally:
            producer().database.close()
            producer.cache_clear()
