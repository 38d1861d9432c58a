"""Four workers and a producer, each on a connection of its own: no overlap, everything in order, all of it ends."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from random import Random
from time import monotonic

from sqlalchemy import select

from tests.conformance.ground import Ground
from tests.conformance.replay import journal, replay
from worker.lifecycle import TERMINAL, Event
from worker.models import Run
from worker.store import claiming, held, settling
from worker.store.claiming import Claim
from worker.store.database import Database
from worker.store.settling import End

WORKERS, THREADS, RUNS = 4, 20, 300
PASSING = End(Event.FAIL, error_code="rate_limit")


class Recorder:
    """Sees from the outside of the database what is carried out: at most one run of a thread at a time, in order."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.ended: Counter[str] = Counter()
        self.tries: Counter[str] = Counter()
        self._running: dict[str, str] = {}
        self._limit = monotonic() + 60
        self._lock = threading.Lock()
        self.committed = threading.Condition()

    def goes_on(self) -> bool:
        """Tell whether runs are left and nothing has gone wrong; a race that stands still ends at the limit."""
        return self.ended.total() < RUNS and not self.faults and monotonic() < self._limit

    def begin(self, claim: Claim) -> None:
        place = int(claim.input[0])
        with self._lock:
            self.tries[claim.run_id] += 1
            if other := self._running.get(claim.thread_id):
                self.faults.append(f"{claim.run_id} overlaps {other}")
            if place != self.ended[claim.thread_id] + 1:
                self.faults.append(f"{claim.thread_id}: {place} after {self.ended[claim.thread_id]}")
            self._running[claim.thread_id] = claim.run_id

    def end(self, claim: Claim, *, settled: bool) -> None:
        """Note the end before it is committed: from the commit on the next one may begin."""
        with self._lock:
            del self._running[claim.thread_id]
            self.ended[claim.thread_id] += settled


class Racer:
    """One worker: claims a few, settles most, and puts some back, until everything has ended."""

    def __init__(self, url: str, number: int, recorder: Recorder) -> None:
        self.database = Database(url, pool_size=1)
        self.worker, self.random = f"w{number}", Random(number)
        self.recorder = recorder

    def race(self) -> None:
        try:
            while self.recorder.goes_on():
                claims = self._claim()
                for claim in claims:
                    self.recorder.begin(claim)
                    self._carry_out(claim)
                with self.recorder.committed:
                    self.recorder.committed.notify_all()
                    if not claims:
                        self.recorder.committed.wait(0.1)  # a limit: what was committed after our look may be the last
        finally:
            self.database.close()

    def _claim(self) -> list[Claim]:
        with self.database.write() as connection:
            return claiming.claim(connection, self.worker, ["default"], self.random.randint(1, 5))

    def _carry_out(self, claim: Claim) -> None:
        retried = self.random.random() < 0.2
        self.recorder.end(claim, settled=not retried)
        with self.database.write() as connection:
            if retried:
                held.commit(connection, claim, settling.retry, 0.0, PASSING, 60.0)
            else:
                held.commit(connection, claim, settling.settle, End(Event.COMPLETE, "done"))


def test_four_workers_and_a_producer_at_once(ground: Ground) -> None:
    """Expected: 300 runs over 20 threads completed while they come in; overlaps 0, order faults 0, no attempt lost."""
    recorder = Recorder()
    racers = [Racer(ground.database.url, number, recorder) for number in range(WORKERS)]
    for racer in racers:
        ground.boot(racer.worker)
    with ThreadPoolExecutor(WORKERS) as pool:
        racing = [pool.submit(racer.race) for racer in racers]
        for place in range(1, RUNS // THREADS + 1):
            for thread in range(THREADS):
                ground.submit(f"t{thread}", str(place))
        for race in racing:
            race.result()
    with ground.database.read() as connection:
        told = replay(journal(connection))
        rows = connection.execute(select(Run.id, Run.status, Run.attempt)).all()
    assert (recorder.faults, told.overlaps, told.order_faults, told.turns()) == ([], [], [], {})
    assert {row.status for row in rows} == {"completed"} <= TERMINAL
    assert {row.id: row.attempt for row in rows} == dict(recorder.tries)
    assert told.claims == recorder.tries.total() > RUNS
