"""The machine: what it is, how fast it is just now, and which core is whose."""

import contextlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_PACKAGES = ("openai", "httpx2", "aiohttp", "celery", "kombu", "redis", "sqlalchemy", "psycopg", "pydantic")
CORES = sorted(os.sched_getaffinity(0))
_GROUPS = Path("/sys/fs/cgroup/cpu")  # version 1
_PERIOD = 10_000  # microseconds: a worker that has used up its part is not kept waiting for long


def facts() -> dict[str, Any]:
    """Say what the figures were measured on."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(CORES),
        "cpu": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "pinned": len(CORES) > 1,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


@contextlib.contextmanager
def core_of(whose: str) -> Iterator[None]:
    """Start processes on the core of the `servers` or of the `measured`: children inherit it."""
    before = os.sched_getaffinity(0)
    cores = {"servers": CORES[:1], "measured": CORES[1:2] or CORES}[whose]
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def held_to(part: float, pid: int) -> Iterator[None]:
    """Let a process, and those that it starts from now on, have no more than this part of a core while the block runs.

    Raises OSError where control groups of version 1 with the cpu controller are not there, or not ours to make.
    """
    group = _GROUPS / f"runwright-bench-{pid}"
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text(f"{_PERIOD}")
        (group / "cpu.cfs_quota_us").write_text(f"{round(_PERIOD * part)}")
        (group / "cgroup.procs").write_text(f"{pid}")
        yield
    finally:
        with contextlib.suppress(OSError):  # one whose processes have not ended
            group.rmdir()


def calibrate() -> float:
    """Return the CPU milliseconds of one fixed loop on the core of the measured: the same work, the machine's mood."""
    with core_of("measured"):
        began = time.process_time()
        sum(number * number for number in range(1_000_000))
        return (time.process_time() - began) * 1000
