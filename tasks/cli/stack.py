"""The processes of `up` and `demo`: embedded server, simulator if wanted, worker, scheduler; ended together."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tasks.cli.interrupts import Interrupts
from worker import embedded
from worker.errors import RunwrightError
from worker.settings import Settings
from worker.store import migrating, reading
from worker.store.database import Database

_START_SECONDS = 60.0
_STOP_SPARE = 25.0  # seconds beyond grace and leases: those of worker/service.py, and Celery's own
_AGAIN_SECONDS = 1.0
_LOOK_SECONDS = 0.05


class Stack:
    """What was started, and the environment that its processes share."""

    def __init__(self, home: Path, environ: Mapping[str, str]) -> None:
        """Start nothing yet; logs go to <home>/logs."""
        self.home = home
        self.environ = {**environ, "RUNWRIGHT_HOME": str(home)}
        self.logs = home / "logs"
        self.interrupts = Interrupts()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._starts: dict[str, int] = {}  # where in its log each begins: earlier ones are kept

    def settings(self) -> Settings:
        """Return the settings that the processes read."""
        return Settings.from_env(self.environ)

    def start(self, name: str, *command: str) -> None:
        """Start `python -m command…`, its output at the end of a file of its own."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.log").open("ab") as output:
            self._starts[name] = output.tell()
            self._children[name] = subprocess.Popen(  # noqa: S603 - our own modules, no shell
                [sys.executable, "-m", *command],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for `up`, which ends them in order
            )

    def pid(self, name: str) -> int:
        """Return the process id of what was started under this name."""
        return self._children[name].pid

    def wait_for(self, name: str, condition: Callable[[], bool]) -> None:
        """Return when the condition holds; raises RunwrightError with the log's last line if the process ends."""
        deadline = time.monotonic() + _START_SECONDS
        while not condition():
            self.check(name)
            self.interrupts.check()
            if time.monotonic() > deadline:
                raise RunwrightError(f"the {name} did not come up in {_START_SECONDS:g} s; see {self.logs / name}.log")
            time.sleep(_LOOK_SECONDS)

    def check(self, *names: str) -> None:
        """Raise RunwrightError for a process (of all, if none is named) that has ended by itself."""
        for name in names or self._children:
            code = self._children[name].poll()
            if code is not None:
                raise RunwrightError(self._told(name, code))

    def _told(self, name: str, code: int) -> str:
        """Say how a process ended; what one said before it was killed is not the reason."""
        log = self.logs / f"{name}.log"
        if code < 0:
            return f"the {name} was killed by {_signal(-code)}; its log is {log}"
        lines = log.read_bytes()[self._starts[name] :].decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"the {name} ended with code {code}: {last} (all of it in {log})"

    def stop(self) -> None:
        """End every process, the last started first, and wait for each; a worker that must hurry is told so."""
        settings = self.settings()
        limit = settings.tool_grace + 2 * settings.lease + _STOP_SPARE
        for child in reversed(self._children.values()):
            self._end(child, time.monotonic() + limit)

    def _end(self, child: subprocess.Popen[bytes], deadline: float) -> None:
        child.terminate()
        while child.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_AGAIN_SECONDS)
            if self.interrupts.hurried:
                child.terminate()  # a second time: a worker gives running tools no more time
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # the real-time ones have no names
        return f"signal {number}"


@contextlib.contextmanager
def running(home: Path, environ: Mapping[str, str], *, simulate: bool, queues: str = "") -> Iterator[Stack]:
    """Start everything that is not given by the environment and stop it at the end.

    With `simulate` the provider is a simulator, whatever OPENAI_* hold. Raises RunwrightError where a part fails.
    Signals are taken meanwhile: the block lets them break it off with `stack.interrupts.breaking()`.
    """
    stack = Stack(home, environ)
    with stack.interrupts.taken(), contextlib.ExitStack() as ends:
        if stack.settings().redis_url is None:
            ends.callback(embedded.start(stack.settings().home).stop)
        ends.callback(stack.stop)
        if simulate:
            _start_simulator(stack)
        with stack.interrupts.breaking():
            database = _migrated(stack.settings())
        _start_worker(stack, database, queues)
        stack.start("scheduler", "celery", "-A", "worker.app", "beat", "--enable-remote-control")
        yield stack


def _start_simulator(stack: Stack) -> None:
    ready = stack.home / "simulator.url"
    ready.unlink(missing_ok=True)
    stack.start("simulator", "simulator", "--port", "0", "--ready-file", str(ready))
    stack.wait_for("simulator", ready.exists)
    here = "127.0.0.1,localhost"  # never through a proxy that the environment names
    url = ready.read_text().strip()
    stack.environ |= {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "simulated", "NO_PROXY": here, "no_proxy": here}


def _migrated(settings: Settings) -> Database:
    database = Database(settings.database_url)
    migrating.migrate(database)
    return database


def _start_worker(stack: Stack, database: Database, queues: str) -> None:
    """Start a worker and wait for its row: from then on it claims."""
    before = _workers(database)
    # A name of its own: two stacks on one Redis would otherwise answer to the same.
    node = f"runwright-{os.getpid()}@%h"
    chosen = ["-Q", queues] if queues else []
    stack.start("worker", "celery", "-A", "worker.app", "worker", "-n", node, *chosen)
    stack.wait_for("worker", lambda: _workers(database) - before != set())


def _workers(database: Database) -> set[str]:
    with database.read() as connection:
        return set(reading.living_workers(connection))
