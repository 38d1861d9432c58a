"""Workers that have nothing to do: what they ask of the database, and of the processor."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import accounting
from benchmarks.machine import calibrate
from benchmarks.measure import Row
from benchmarks.servers import Ground
from tests import counting

_SETTLED = 60.0  # seconds: those that find nothing look less and less often
_WATCHED = 60.0


def idle(ground: Ground, count: int) -> Row:
    """Let so many workers wait for a minute, and another one in which their statements and CPU are counted."""
    with ground.database("postgresql") as url, TemporaryDirectory(dir=ground.folder) as folder:
        calibration = calibrate()
        with ground.workers(count, ground.environ(url) | counting.environ(Path(folder))) as workers:
            time.sleep(_SETTLED)
            pids = [each.pid for each in workers]
            before, spent = counting.total(Path(folder)), sum(map(accounting.cpu, pids))
            time.sleep(_WATCHED)
            sent = counting.total(Path(folder)) - before
            used = sum(map(accounting.cpu, pids)) - spent
    return {
        "queries_per_second": sent["statements"] / _WATCHED,
        "idle_cpu_percent": used / _WATCHED * 100,
        "calibration_ms": round(calibration, 1),
        "checks": [] if sent["commits"] else ["no commit was seen: a worker that lives renews its lease"],
    }
