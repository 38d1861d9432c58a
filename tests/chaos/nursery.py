"""Real Celery workers in a fraction of a second each: forked from one process that has imported everything."""

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.servers import REAPER, ROOT, wait_until

# What a worker does for the sake of other workers, and what takes a second of each start.
ALONE = ("--without-gossip", "--without-mingle", "--without-heartbeat")


class Forked:
    """A worker that the nursery has forked."""

    def __init__(self, nursery: "Nursery", node: str, log_file: Path, pid: int) -> None:
        self._nursery = nursery
        self.node = node
        self.pid = pid
        self.log_file = log_file
        self.code: int | None = None
        """How it ended; a signal's number is negative."""

    @property
    def ended(self) -> bool:
        return self.code is not None

    def log(self) -> str:
        """Return everything that it has written."""
        return self.log_file.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal; one that has ended gets none."""
        self._nursery.tell({"signal": self.pid, "number": number})

    def wait(self, seconds: float) -> int:
        """Return how it ended; AssertionError with its log when the limit passes."""
        try:
            wait_until(lambda: self.ended, f"the end of {self.node}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; its log:\n{self.log()}") from None
        assert self.code is not None
        return self.code

    def is_ready(self) -> bool:
        """Tell whether it takes messages; AssertionError with its log when it has ended instead."""
        assert not self.ended, f"{self.node} ended with {self.code}; its log:\n{self.log()}"
        return f"{self.node}@localhost ready." in self.log()


class Nursery:
    """The forking process: started on entry, ended with all its children on exit."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._forked: dict[int, Forked] = {}
        self._asked: queue.Queue[tuple[str, Path]] = queue.Queue()
        self._born: queue.Queue[Forked | None] = queue.Queue()
        self._one_by_one = threading.Lock()
        self._telling = threading.Lock()

    def __enter__(self) -> Self:
        self._log = self._folder / "nursery.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.forking"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        REAPER.tell("+", self._process.pid)
        self._reader = threading.Thread(target=self._listen, name="nursery", daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(10)
        REAPER.tell("-", self._process.pid)

    def worker(self, node: str, env: Mapping[str, str], *options: str) -> Forked:
        """Fork a worker of this name; it is not ready yet."""
        argv = ["celery", "-A", "worker.app", "worker", "-n", f"{node}@localhost", *ALONE, *options]
        log = self._folder / f"{node}.log"
        log.touch()
        with self._one_by_one:
            self._asked.put((node, log))
            self.tell({"start": {"argv": argv, "env": dict(env), "log": str(log)}})
            forked = self._born.get(timeout=60)
        assert forked is not None, f"the nursery has ended; its log:\n{self._log.read_text()}"
        return forked

    def tell(self, word: Mapping[str, object]) -> None:
        """Send one order."""
        assert self._process.stdin is not None
        with self._telling, contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(word).encode() + b"\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._hear(json.loads(line))
        for forked in self._forked.values():
            REAPER.tell("-", forked.pid)
        self._born.put(None)

    def _hear(self, word: dict[str, int]) -> None:
        if "pid" in word:
            forked = Forked(self, *self._asked.get(), word["pid"])
            self._forked[forked.pid] = forked
            REAPER.tell("+", forked.pid)
            self._born.put(forked)
        else:
            forked = self._forked.pop(word["ended"])
            forked.code = word["code"]
            REAPER.tell("-", forked.pid)
