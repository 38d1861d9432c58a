"""The queue itself, without a worker: how fast runs go in, and what it costs to take them out."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, text

from benchmarks.machine import calibrate, core_of
from benchmarks.measure import CONFIG, Row
from benchmarks.rivals.track import TEXT
from benchmarks.servers import Ground
from tasks.runs import RunRequest, accept
from worker.models import Run
from worker.producer import Producer
from worker.settings import Settings
from worker.store import assistants, claiming, leases, pausing

_CLAIMS = 15
_CHUNK = 100


@contextmanager
def _producer(ground: Ground, kind: str) -> Iterator[Producer]:
    with ground.database(kind) as url:
        producer = Producer(Settings.from_env(ground.environ(url)))
        try:
            with producer.database.write() as connection:
                assistants.apply(connection, "bench", CONFIG)
                _accept(producer, connection, 1)
            yield producer
        finally:
            producer.database.close()


def _accept(producer: Producer, connection: Connection, count: int) -> None:
    accept(producer, connection, [RunRequest(assistant="bench", input=TEXT) for _ in range(count)])


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    """Do it on the core of the measured; return wall-clock and CPU seconds of this process."""
    with core_of("measured"):
        began, spent = time.perf_counter(), time.process_time()
        work()
        return time.perf_counter() - began, time.process_time() - spent


def bulk(ground: Ground, kind: str, count: int) -> Row:
    """Accept so many runs in one transaction."""
    with _producer(ground, kind) as producer:

        def submit() -> None:
            with producer.database.write() as connection:
                _accept(producer, connection, count)
            producer.doorbell.ring(["default"])

        calibration = calibrate()
        seconds, cpu = _timed(submit)
    return {"submits_per_second": count / seconds, "cpu_ms_per_run": cpu * 1000 / count, "calibration_ms": calibration}


def single(ground: Ground, kind: str, count: int) -> Row:
    """Accept runs one after another, each with its commit and its ring."""
    with _producer(ground, kind) as producer:

        def submit() -> None:
            for _ in range(count):
                with producer.database.write() as connection:
                    _accept(producer, connection, 1)
                producer.doorbell.ring(["default"])

        calibration = calibrate()
        seconds, cpu = _timed(submit)
    return {"submits_per_second": count / seconds, "cpu_ms_per_run": cpu * 1000 / count, "calibration_ms": calibration}


def claim(ground: Ground, kind: str, rows: int, *, paused: bool) -> Row:
    """Take a hundred runs at a time from a queue of so many; `paused`: while another queue is."""
    with _producer(ground, kind) as producer:
        _fill(producer, rows)
        with producer.database.write() as connection:
            room = _CLAIMS * _CHUNK
            leases.register(connection, "bench", node="bench", pid=0, queues=["default"], room=room, lease=3600.0)
            if paused:
                pausing.pause(connection, pausing.Kind.QUEUE, "elsewhere")
        calibration, times = calibrate(), []
        for _ in range(min(_CLAIMS, rows // _CHUNK)):

            def take() -> None:
                with producer.database.write() as connection:
                    taken = claiming.claim(connection, "bench", ["default"], _CHUNK)
                assert len(taken) == _CHUNK, f"{len(taken)} taken"

            times.append(_timed(take)[0] * 1000)
    return {"claim_ms": statistics.median(times), "claim_ms_worst": max(times), "calibration_ms": calibration}


def _fill(producer: Producer, rows: int) -> None:
    """Copy the one run that was accepted, with its thread, in the database itself."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows) "
    own = {"id": "'r' || n.i", "thread_id": "'t' || n.i", "idempotency_key": "NULL"}
    names = [column.name for column in Run.__table__.columns]
    values = ", ".join(own.get(name, f"r.{name}") for name in names)
    threads = f"INSERT INTO runwright_threads (id, next_seq, created_at) {numbers} SELECT 't' || n.i, t.next_seq, "
    threads += "t.created_at FROM n, (SELECT * FROM runwright_threads LIMIT 1) t"
    runs = f"INSERT INTO runwright_runs ({', '.join(names)}) {numbers} SELECT {values} "
    runs += "FROM n, (SELECT * FROM runwright_runs LIMIT 1) r"
    with producer.database.write() as connection:
        for statement in (threads, runs):
            connection.execute(text(statement), {"rows": rows})
    with producer.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
