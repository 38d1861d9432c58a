"""Thousands of runs go through while workers are killed, told to stop and frozen, and servers are taken away."""

import contextlib
import random
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tasks import runs
from tasks.runs import RunRequest
from tests.chaos import recovery
from tests.chaos.audit import Expected
from tests.chaos.breakables import Postgres, Redis
from tests.chaos.recovery import Bereft
from tests.nursery import Forked, Nursery
from worker.lifecycle import TERMINAL
from worker.models import Run
from worker.producer import producer

T = TypeVar("T")
FROZEN = 1.5
"""Leases that a worker is frozen for."""
_GAP = 0.25  # seconds between two faults: a fleet that is killed faster than it starts carries nothing
_QUIET = 90.0  # seconds without any end, after which what has not ended counts as lost
_CHUNK = 50
_REFUSED = 2  # the exit code of a worker that cannot begin
# What a run asks for, by its number, and how many provider runs that takes.
_KINDS = (
    ("", 1),
    ("[[call look_up {}]][[call put {}]]", 2),
    ("[[call book {}]][[then]][[call look_up {}]]", 3),
    ("[[call book {}]][[call put {}]][[then]][[call book {}]]", 3),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many of what."""

    runs: int
    kills: int
    workers: int
    lease: float
    minutes: float
    seed: int
    threads: int
    stops: int
    freezes: int
    redis_losses: int
    database_halts: int
    database_crashes: int


@dataclass(slots=True)
class Tally:
    """What was done to the fleet, and what came of it."""

    done: Counter[str] = field(default_factory=Counter)
    bereft: list[Bereft] = field(default_factory=list)
    away: list[tuple[float, float]] = field(default_factory=list)
    """When the database was away, in seconds since the epoch."""
    stop_seconds: list[float] = field(default_factory=list)
    unclean: list[str] = field(default_factory=list)
    """Workers that ended by themselves, or otherwise than they were told to."""
    seconds: float = 0.0


def patiently(ask: Callable[[], T]) -> T:
    """Ask again while the database is away, as any producer would."""
    while True:
        try:
            return ask()
        except (DBAPIError, PoolTimeout):
            time.sleep(0.2)


class Fight:
    """One course: faults come by progress, so that a slow machine meets as many as a fast one."""

    def __init__(
        self,
        plan: Plan,
        *,
        nursery: Nursery,
        env: dict[str, str],
        redis: Redis,
        database: Postgres | None,
        show: Callable[[int, Counter[str]], None],
    ) -> None:
        self._plan = plan
        self._nursery = nursery
        self._env = env
        self._redis = redis
        self._database = database
        self._show = show
        self._random = random.Random(plan.seed)
        self._fleet: list[Forked] = []
        self._ready: set[int] = set()
        self._stopping: dict[int, float] = {}
        self._frozen: dict[int, float] = {}
        self._born = 0
        self._next_fault = 0.0
        self.expected: list[Expected] = []
        self.tally = Tally()
        self._requests = deque(self._request(number) for number in range(plan.runs))

    # ── the course ────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Carry it through: until every run has ended, nothing moves any more, or the time is over."""
        began = time.monotonic()
        faults = deque(self._faults())
        ended, moved = 0, time.monotonic()
        while ended < self._plan.runs and time.monotonic() - began < self._plan.minutes * 60:
            self._submit(ended)
            self._tend()
            before, ended = ended, patiently(_ended)
            moved = time.monotonic() if ended > before or self._frozen else moved
            if time.monotonic() - moved > _QUIET:
                break
            if faults and ended >= faults[0][0] * self._plan.runs and time.monotonic() >= self._next_fault:
                if faults[0][1]():
                    faults.popleft()
                self._next_fault = time.monotonic() + _GAP
            self._show(ended, self.tally.done)
            time.sleep(0.2)
        self.tally.seconds = time.monotonic() - began

    def _faults(self) -> list[tuple[float, Callable[[], bool]]]:
        plan, kinds = self._plan, list[tuple[int, Callable[[], bool]]]()
        kinds += [(plan.kills, self._kill), (plan.stops, self._stop), (plan.freezes, self._freeze)]
        kinds += [(plan.redis_losses, self._lose_redis)]
        if self._database:
            kinds += [(plan.database_halts, self._halt_database), (plan.database_crashes, self._crash_database)]
        spread = [(self._random.uniform(i, i + 1) / count * 0.95, act) for count, act in kinds for i in range(count)]
        return sorted(spread, key=lambda fault: fault[0])

    def _request(self, number: int) -> RunRequest:
        calls, _ = _KINDS[number // self._plan.threads % len(_KINDS)]
        thread, key = f"thread-{number % self._plan.threads}", f"chaos-{number}"
        return RunRequest(assistant="clerk", input=f"{calls}[[say {number}]]", thread=thread, idempotency_key=key)

    def _submit(self, ended: int) -> None:
        """Keep some runs for each thread waiting."""
        while self._requests and len(self.expected) < ended + 3 * self._plan.threads:
            self._submit_some()

    def _submit_some(self) -> None:
        """Submit a chunk; its keys make a submit whose answer was lost the same runs when it is asked again."""
        chunk = [self._requests.popleft() for _ in range(min(_CHUNK, len(self._requests)))]
        for handle in patiently(lambda: runs.submit_many(chunk)):
            number = len(self.expected)
            self.expected.append(Expected(handle.id, _KINDS[number // self._plan.threads % len(_KINDS)][1]))

    # ── the fleet ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _tend(self) -> None:
        """Take note of who has ended and start as many again."""
        now = time.monotonic()
        for worker in [worker for worker in self._fleet if worker.ended]:
            self._fleet.remove(worker)
            told_at = self._stopping.pop(worker.pid, None)
            if told_at is not None and worker.code == 0:
                self.tally.stop_seconds.append(now - told_at)
            elif worker.code == _REFUSED and worker.pid not in self._ready:
                self.tally.done["starts refused"] += 1  # the database was away
            elif worker.code != -signal.SIGKILL:
                self.tally.unclean.append(f"{worker.node} ended with {worker.code}: {worker.log_file}")
        for pid in [pid for pid, until in self._frozen.items() if now >= until]:
            del self._frozen[pid]
        while len(self._fleet) < self._plan.workers:
            self._born += 1
            self._fleet.append(self._nursery.worker(f"worker-{self._born}", self._env))

    def _pick(self) -> Forked | None:
        """Choose one that carries runs and has nothing else to suffer."""
        busy = self._frozen.keys() | self._stopping.keys()
        for worker in self._fleet:
            if worker.pid not in self._ready and not worker.ended and worker.is_ready():
                self._ready.add(worker.pid)
        able = [one for one in self._fleet if one.pid in self._ready and one.pid not in busy and not one.ended]
        return self._random.choice(able) if able else None

    # ── the faults: each tells whether it happened ────────────────────────────────────────────────────────────────

    def _kill(self) -> bool:
        worker = self._pick()
        if worker is None:
            return False
        held = patiently(lambda: recovery.held_by(worker))
        worker.send(signal.SIGKILL)
        worker.wait(10)
        self.tally.bereft += held
        self.tally.done["kills"] += 1
        return True

    def _stop(self) -> bool:
        worker = self._pick()
        if worker is None:
            return False
        worker.send(signal.SIGTERM)
        self._stopping[worker.pid] = time.monotonic()
        self.tally.done["hand-overs"] += 1
        return True

    def _freeze(self) -> bool:
        worker = self._pick()
        if worker is None:
            return False
        seconds = FROZEN * self._plan.lease
        worker.send(signal.SIGSTOP)
        self._frozen[worker.pid] = time.monotonic() + seconds
        # A thread of its own: what the frozen one has locked may hold up our next question to the database.
        thaw = threading.Timer(seconds, worker.send, [signal.SIGCONT])
        thaw.daemon = True
        thaw.start()
        self.tally.done["freezes"] += 1
        return True

    def _lose_redis(self) -> bool:
        """Submits go on while it is away; it comes back with nothing."""
        self._redis.kill()
        self._submit_some()
        time.sleep(self._random.uniform(0.5, 3))
        self._redis.start()
        self.tally.done["Redis losses"] += 1
        return True

    def _halt_database(self) -> bool:
        assert self._database is not None
        with self._away():
            self._database.halt()
            self._kill_blindly()
            time.sleep(1.2 * self._plan.lease)
            self._database.go_on()
        self.tally.done["database halts"] += 1
        return True

    def _crash_database(self) -> bool:
        assert self._database is not None
        with self._away():
            self._database.crash()
            self._kill_blindly()
            time.sleep(self._random.uniform(0.5, self._plan.lease))
            self._database.start()
        self.tally.done["database crashes"] += 1
        return True

    @contextlib.contextmanager
    def _away(self) -> Iterator[None]:
        began = time.time()
        yield
        self.tally.away.append((began, time.time()))

    def _kill_blindly(self) -> None:
        """Kill one while nobody can tell what it holds: it counts as a kill, and its recovery is not measured."""
        if worker := self._pick():
            worker.send(signal.SIGKILL)
            worker.wait(10)
            self.tally.done["kills"] += 1


def _ended() -> int:
    ended = select(func.count()).where(Run.status.in_([status.value for status in TERMINAL]))
    with producer().database.read() as connection:
        return int(connection.execute(ended).scalar_one())
