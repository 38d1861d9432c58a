"""What a command costs before the shell's prompt is back."""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from benchmarks.machine import calibrate, core_of
from benchmarks.measure import CONFIG, Row
from benchmarks.servers import Ground
from tests.servers import ROOT
from worker.store import assistants
from worker.store.database import Database

RUNWRIGHT = ("-m", "tasks.cli.main")
_TIMES = 10


def python(ground: Ground, *arguments: str) -> Row:
    """Start Python with these arguments, on an SQLite database with an assistant, and return the medians."""
    with ground.database("sqlite") as url:
        database = Database(url)
        with database.write() as connection:
            assistants.apply(connection, "bench", CONFIG)
        database.close()
        calibration = calibrate()
        with core_of("measured"):
            costs = [_cost([sys.executable, *arguments], ground.environ(url)) for _ in range(_TIMES)]
    wall, cpu = (statistics.median(values) * 1000 for values in zip(*costs, strict=True))
    return {"command_ms": wall, "command_cpu_ms": cpu, "calibration_ms": calibration}


def _cost(command: Sequence[str], environ: Mapping[str, str]) -> tuple[float, float]:
    """Return the wall-clock and CPU seconds that a command takes."""
    began, spent = time.perf_counter(), _spent()
    subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=True, timeout=60)
    return time.perf_counter() - began, _spent() - spent


def _spent() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime
