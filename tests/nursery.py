"""Real Celery workers and commands in a fraction of a second each: forked from one process that has imported all."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from tests.servers import REAPER, ROOT, CeleryWorker

# What a worker does for the sake of other workers, and what takes a second of each start.
ALONE = ("--without-gossip", "--without-mingle", "--without-heartbeat")


class Sibling:
    """A child of the nursery, as `subprocess.Popen` shows a child of its own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = threading.Event()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("a forked worker", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, sig: int, /) -> None:
        if self.returncode is None:
            os.kill(self.pid, sig)

    def end(self, code: int) -> None:
        """Take down how it ended; a signal's number is negative."""
        self.returncode = code
        self._ended.set()


class Forked(CeleryWorker):
    """A worker that the nursery has forked."""

    def __init__(self, node: str, log_file: Path, child: Sibling) -> None:
        self.node = node
        self.log_file = log_file
        self.popen = child

    @property
    def ended(self) -> bool:
        return self.popen.returncode is not None

    @property
    def code(self) -> int | None:
        return self.popen.returncode

    def wait(self, seconds: float) -> int:
        """Return how it ended; AssertionError with its log when the limit passes."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.node} has not ended in {seconds:g} s; its log:\n{self.log()}") from None

    def is_ready(self) -> bool:
        """Tell whether it takes messages; AssertionError with its log when it has ended instead."""
        assert not self.ended, f"{self.node} ended with {self.code}; its log:\n{self.log()}"
        return f"{self.node} ready." in self.log()


class Nursery:
    """The forking process: started on entry, ended with all its children on exit."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: dict[int, Sibling] = {}
        self._born: queue.Queue[Sibling | None] = queue.Queue()
        self._one_by_one = threading.Lock()

    def __enter__(self) -> Self:
        self._log = self._folder / "nursery.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forking"],
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

    def start(self, folder: Path, env: Mapping[str, str], *options: str) -> CeleryWorker:
        """Fork a worker under a name of its own, with its log in this folder; it is not ready yet."""
        node = f"{uuid.uuid4().hex[:8]}@localhost"
        return self._worker(node, folder / f"{node}.log", env, options)

    def worker(self, name: str, env: Mapping[str, str], *options: str) -> Forked:
        """Fork a worker of this name that takes no notice of others; it is not ready yet."""
        return self._worker(f"{name}@localhost", self._folder / f"{name}.log", env, (*ALONE, *options))

    def run(
        self, module: str, *arguments: str | bytes, env: Mapping[str, str], cwd: Path = ROOT, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m module` with these arguments to its end, as `subprocess.run` does, within a minute."""
        argv = [module, *map(os.fsdecode, arguments)]
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        given, out, err = (folder / name for name in ("stdin", "stdout", "stderr"))
        given.write_bytes(stdin)
        child = self._fork({"module": module, "argv": argv, "env": dict(env), "cwd": cwd, "files": [given, out, err]})
        try:
            code = child.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(argv, code, out.read_text(), err.read_text())

    def kill_all(self) -> None:
        """End what is left, as `kill -9` does."""
        for child in list(self._children.values()):
            child.send_signal(signal.SIGKILL)
            child.wait(10)

    def _worker(self, node: str, log: Path, env: Mapping[str, str], options: Iterable[str]) -> Forked:
        argv = ["celery", "-A", "worker.app", "worker", "-n", node, *options]
        log.touch()
        files = [os.devnull, log, log]
        child = self._fork({"module": "celery", "argv": argv, "env": dict(env), "cwd": ROOT, "files": files})
        return Forked(node, log, child)

    def _fork(self, order: Mapping[str, Any]) -> Sibling:
        with self._one_by_one, contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order, default=str).encode() + b"\n")
            self._process.stdin.flush()
            if child := self._born.get(timeout=60):
                return child
        raise AssertionError(f"the nursery has ended; its log:\n{self._log.read_text()}")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._hear(json.loads(line))
        for pid in self._children:
            REAPER.tell("-", pid)
        self._born.put(None)

    def _hear(self, word: dict[str, int]) -> None:
        if "pid" in word:
            child = self._children[word["pid"]] = Sibling(word["pid"])
            REAPER.tell("+", child.pid)
            self._born.put(child)
        else:
            self._children.pop(word["ended"]).end(word["code"])
            REAPER.tell("-", word["ended"])
