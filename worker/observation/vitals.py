"""Whether this worker is well: every sign is taken with a limit, so that who asks never hangs with what is ill."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any, Generic, TypeVar

from worker.engine import Engine
from worker.settings import Settings
from worker.store import overview, reading
from worker.store.database import Database
from worker.store.overview import Due

T = TypeVar("T")
_LOOP_LIMIT = 1.0
_DATABASE_LIMIT = 2.0
_FRESH = 5.0  # seconds that a count of the backlog is good for, however many scrape it
_SHARE = 20.0  # and so many times what counting took: a count of a huge backlog may take its time, but seldom


class Bounded(Generic[T]):
    """Calls a function in a daemon thread and waits for a limit; a call that hangs is joined, not piled up on."""

    def __init__(self, function: Callable[[], T], seconds: float) -> None:
        self._function = function
        self._seconds = seconds
        self._lock = threading.Lock()
        self._last: Future[T] | None = None

    def __call__(self) -> T:
        """Return what the function returns; raises what it raises, TimeoutError when the limit passes."""
        with self._lock:
            if self._last is None or self._last.done():
                self._last = Future()
                threading.Thread(target=self._run, args=(self._last,), name="vitals", daemon=True).start()
            call = self._last
        return call.result(self._seconds)

    def _run(self, call: Future[T]) -> None:
        try:
            call.set_result(self._function())
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
            call.set_exception(error)


class LoopLag:
    """How long the engine's loop takes to come round."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._asked = 0.0
        self._round: Future[float] | None = None

    def __call__(self) -> float | None:
        """Return seconds; of a loop that hangs those since it was first asked, and None of one that has ended."""
        with self._lock:
            if self._round is None or self._round.done():
                self._round, self._asked = Future(), monotonic()
                try:
                    self._loop.call_soon_threadsafe(self._turned, self._round, self._asked)
                except RuntimeError:
                    self._round = None
                    return None
            turn, asked = self._round, self._asked
        try:
            return turn.result(_LOOP_LIMIT)
        except TimeoutError:
            return monotonic() - asked

    @staticmethod
    def _turned(turn: Future[float], asked: float) -> None:
        turn.set_result(monotonic() - asked)


@dataclass(frozen=True, slots=True)
class Signs:
    """What /healthz tells; `unwell` names what keeps the worker from taking runs."""

    unwell: list[str]
    version: str
    node: str
    worker: str
    in_flight: int
    max_in_flight: int
    loop_lag_seconds: float | None
    lease_valid: bool
    database: str


class Vitals:
    """Takes the signs of one running worker."""

    def __init__(self, settings: Settings, engine: Engine, loop: asyncio.AbstractEventLoop, version: str) -> None:
        """Prepare; the connections are its own, so that no busy pool makes the database look away."""
        self._settings = settings
        self._engine = engine
        self._version = version
        self._database = Database(settings.database_url, pool_size=2)
        self._ask = Bounded(lambda: self._read(reading.living_workers), _DATABASE_LIMIT)
        self._count = Bounded(lambda: self._read(overview.due), _DATABASE_LIMIT)
        self._lock = threading.Lock()
        self._backlog: list[Due] | None = None
        self._fresh_until = 0.0
        self.lag = LoopLag(loop)
        self.stopping = False

    def in_flight(self) -> int:
        """Return how many runs this worker drives."""
        return len(self._engine.holds())

    def live(self) -> tuple[bool, dict[str, Any]]:
        """Tell whether the loop comes round: a process whose loop has hung for a whole lease is to be restarted."""
        lag = self.lag()
        return lag is not None and lag < self._settings.lease, {"version": self._version, "loop_lag_seconds": lag}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Tell whether it can take runs and carry them on, and all signs that say so."""
        lag, database = self.lag(), self._said_by_database()
        checks = {
            "stopping": self.stopping,
            "loop": lag is None or lag >= _LOOP_LIMIT,
            "lease": not self._engine.alive(),
            "database": database != "ok",
        }
        signs = Signs(
            unwell=[name for name, ill in checks.items() if ill],
            version=self._version,
            node=self._engine.node,
            worker=self._engine.worker,
            in_flight=self.in_flight(),
            max_in_flight=self._settings.max_in_flight,
            loop_lag_seconds=lag,
            lease_valid=not checks["lease"],
            database=database,
        )
        return not signs.unwell, asdict(signs)

    def backlog(self) -> list[Due] | None:
        """Return the due runs of every queue as of some seconds ago, None where the database does not tell."""
        with self._lock:
            if monotonic() >= self._fresh_until:
                began = monotonic()
                try:
                    self._backlog = self._count()
                except Exception:  # noqa: BLE001 - whatever keeps it from telling, there is no number to show
                    self._backlog = None
                self._fresh_until = monotonic() + max(_FRESH, _SHARE * (monotonic() - began))
            return self._backlog

    def close(self) -> None:
        """Close the connections that are idle."""
        self._database.close()

    def _said_by_database(self) -> str:
        try:
            self._ask()
        except TimeoutError:
            return f"no answer in {_DATABASE_LIMIT:g} s"
        except Exception as error:  # noqa: BLE001 - any error means that it cannot be used
            return type(error).__name__
        return "ok"

    def _read(self, unit: Callable[..., T]) -> T:
        with self._database.read() as connection:
            return unit(connection)
