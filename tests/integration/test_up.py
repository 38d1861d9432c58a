"""`runwright up` ends everything that it has started, however often and early it is told to."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers import Process, running, wait_until


def started_by(parent: int) -> set[int]:
    """Return the children of a process."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True, timeout=10)
    pairs = (line.split() for line in listed.stdout.splitlines())
    return {int(pid) for pid, ppid in pairs if int(ppid) == parent}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Up:
    """One `runwright up` in a home of its own, and all that it was seen to have started."""

    def __init__(self, home: Path, env: dict[str, str]) -> None:
        home.mkdir()
        command = [sys.executable, "-m", "tasks.cli.main", "up"]
        # A shell that starts pytest in the background has SIGINT ignored, and a child inherits that.
        self.process = Process(
            command,
            home / "up.log",
            {**env, "RUNWRIGHT_HOME": str(home)},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.logs = home / "logs"
        self.parts: set[int] = set()

    def wait_until_said(self, words: str) -> None:
        self.process.wait_for(lambda: words in self.process.log(), words, 60)

    def tell(self, number: signal.Signals) -> None:
        """Note what it has started and send it a signal."""
        self.parts |= started_by(self.process.pid)
        self.process.send(number)

    def left(self) -> set[int]:
        """Wait for its end and return what is there still."""
        wait_until(lambda: self.process.popen.poll() is not None, "the end of `up`", 60)
        return {pid for pid in self.parts if alive(pid)}


@pytest.fixture
def both(clean_env: dict[str, str], tmp_path: Path) -> Iterator[list[Up]]:
    """Start two at the same time; what a failing test leaves behind is ended."""
    with ExitStack() as ends:
        ups = [Up(tmp_path / str(number), clean_env) for number in range(2)]
        for up in ups:
            ends.enter_context(running(up.process))
        yield ups
    for pid in {pid for up in ups for pid in up.parts if alive(pid)}:
        os.kill(pid, signal.SIGKILL)


def test_nothing_is_left(both: list[Up]) -> None:
    """Neither of one that is told twice at once while it starts, nor by a second Ctrl-C while it stops."""
    early, late = both
    early.process.wait_for((early.logs / "worker.log").exists, "the worker's start", 60)
    for _ in range(2):  # as `timeout` does: to its child, and to the group
        early.tell(signal.SIGTERM)
    for words in ("ready", "stopping"):
        late.wait_until_said(words)
        late.tell(signal.SIGINT)
    assert [up.left() for up in both] == [set(), set()]
    assert [len(up.parts) for up in both] == [3, 4]  # valkey, simulator, worker, scheduler
    assert late.process.popen.returncode == 0
    assert all("Traceback" not in up.process.log() for up in both)
