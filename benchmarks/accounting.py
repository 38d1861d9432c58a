"""What a process tree has used, by the operating system's accounting in /proc; and a thread that samples it."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def tree(pid: int) -> list[int]:
    """Return the process and all that live below it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def cpu(pid: int) -> float:
    """Return the CPU seconds, user and system, of the tree; of children that ended, too, once they are waited for."""
    total = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime (proc(5))
    return total / _TICKS


def rss(pid: int) -> float:
    """Return the resident MiB of the tree; pages that its processes share count once for each."""
    pages = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{each}/statm").read_text().split()[1])
    return pages * _PAGE / 2**20


def pss(pid: int) -> float:
    """Return the proportional MiB of the tree; shared pages count once."""
    kib = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 1024


@dataclass
class Sample:
    """The tree at one moment; `at` is wall-clock time."""

    at: float
    cpu: float
    rss: float
    seen: dict[str, float]


@dataclass
class Samples:
    """What was seen over time."""

    rows: list[Sample] = field(default_factory=list)

    def peak_rss(self) -> float:
        """Return the most resident MiB."""
        return max((row.rss for row in self.rows), default=0.0)

    def peak(self, name: str) -> float:
        """Return the most of what `look` saw under this name."""
        return max((row.seen.get(name, 0.0) for row in self.rows), default=0.0)


@contextlib.contextmanager
def sampled(pid: int, look: Callable[[], dict[str, float]], seconds: float = 0.25) -> Iterator[Samples]:
    """Sample the tree, and what `look` says, until the block ends."""
    samples, over = Samples(), threading.Event()

    def go() -> None:
        while True:
            with contextlib.suppress(Exception):
                samples.rows.append(Sample(time.time(), cpu(pid), rss(pid), look()))
            if over.wait(seconds):
                return

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()
