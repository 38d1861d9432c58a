"""Runs that wait for hours: one worker process begins them all, and holds none of them meanwhile."""

import time

from sqlalchemy import func, select

from benchmarks import accounting, measure
from benchmarks.measure import CONFIG, Load, Row
from benchmarks.rivals.track import TEXT
from benchmarks.servers import Ground
from tasks.runs import RunRequest, accept
from worker.models import Run
from worker.producer import Producer
from worker.settings import Settings
from worker.store import assistants

_DAY = 86_400.0
_WATCHED = 300.0  # seconds of nothing but waiting: the most that pass between two looks
_CHUNK = 10_000


def parked(ground: Ground, runs: int, hurry: float = 1.0) -> Row:
    """Begin so many runs in a completion window, of a provider that takes half a day, and see what they cost.

    With `hurry` they are looked at so many times more often than by the settings' defaults, and watched less long.
    """
    load = Load(runs=runs, latency=_DAY, limit=runs / 50 + 120)
    with ground.database("postgresql") as url:
        often = {"poll_max": 30 / hurry, "park_after": 60 / hurry}
        environ = ground.environ(url, request_limit=measure.REQUESTS, **often)
        producer = Producer(Settings.from_env(environ))
        try:
            with producer.database.write() as connection:
                assistants.apply(connection, "bench", {**CONFIG, "completion_window": "8h"})
            with ground.workers(1, environ) as (worker,):
                ground.reset(load.latency)
                with measure.measured([worker.pid], load, lambda: measure.seen(ground, url)) as row:
                    _submit(producer, runs)
                    began = time.monotonic()
                    measure.until(lambda: _parked(producer) >= 0.99 * runs, load, lambda: "not all are parked")
                    seconds, spent = time.monotonic() - began, accounting.cpu(worker.pid)
                    time.sleep(_WATCHED / hurry)
                    waiting = (accounting.cpu(worker.pid) - spent) * 1000 / runs / _WATCHED * hurry * 60
                counted = ground.counters()
        finally:
            producer.database.close()
    made, looks = counted["responses_per_run"], counted["by_kind"].get("GET responses/{id}", 0)
    checks = [] if made == {"1": runs} else [f"{made} responses"]
    checks += [] if looks >= runs else [f"{looks} looks at {runs} runs"]
    return row | {
        "seconds": seconds,
        "waiting_cpu_ms_per_minute": waiting,
        "requests_per_run": counted["requests"] / runs,
        "max_in_flight": counted["max_in_flight"],
        "provider_connections": counted["connections"],
        "checks": checks,
    }


def _submit(producer: Producer, runs: int) -> None:
    for start in range(0, runs, _CHUNK):
        with producer.database.write() as connection:
            asked = [RunRequest(assistant="bench", input=TEXT) for _ in range(min(_CHUNK, runs - start))]
            accept(producer, connection, asked)
        producer.doorbell.ring(["default"])


def _parked(producer: Producer) -> int:
    """Count the runs that go on at the provider, and that no worker holds."""
    nobodys = select(func.count()).where(Run.status == "in_progress", Run.owner.is_(None))
    with producer.database.read() as connection:
        return int(connection.execute(nobodys).scalar_one())
