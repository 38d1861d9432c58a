"""What the tests of the store stand on: a database with one assistant, and the moves that most of them make."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, select, text, update

from tests.servers import wait_until
from worker.backends.places import Place
from worker.dbtime import from_now
from worker.lifecycle import Event, Status
from worker.models import Base, Run, Worker
from worker.store import assistants, claiming, held, leases, settling, submitting
from worker.store.claiming import Claim
from worker.store.database import Database
from worker.store.held import Hold
from worker.store.settling import End, Settled
from worker.store.submitting import NewRun

P = ParamSpec("P")
T = TypeVar("T")
Unit = Callable[..., Any]
PLACE = str(Place.of({}, "responses"))
COMPLETE = End(Event.COMPLETE, output_text="done")


class Ground:
    """One database with an assistant in it; every move is a transaction of its own."""

    def __init__(self, url: str) -> None:
        self.database = Database(url, pool_size=10)
        self._pool = ThreadPoolExecutor(1)
        self.assistant_id = self.write(assistants.apply, "helper", {"model": "m"})[0].id

    @property
    def postgresql(self) -> bool:
        return self.database.engine.dialect.name == "postgresql"

    def write(self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one unit of the store in a transaction."""
        with self.database.write() as connection:
            return unit(connection, *args, **kwargs)

    def commit(self, claim: Claim, unit: Callable[Concatenate[Hold, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Carry out one unit of a held run in a transaction."""
        return self.write(held.commit, claim, unit, *args, **kwargs)

    def new(self, thread: str | None = "t", words: str = "hello", **options: Any) -> NewRun:
        """Return a run to submit."""
        asked = {"input": [words], "max_attempts": 3, "timeout": 600.0, **options}
        return NewRun(assistant_id=self.assistant_id, assistant="helper", thread_id=thread, **asked)

    def submit(self, thread: str | None = "t", words: str = "hello", **options: Any) -> str:
        """Submit one run and return its id."""
        return self.write(submitting.submit, [self.new(thread, words, **options)])[0].id

    def boot(self, worker: str = "w1", lease: float = 600.0, queues: Sequence[str] = ("default",)) -> str:
        """Enter a worker that lives for `lease` seconds."""
        self.write(leases.register, worker, node="n", pid=1, queues=queues, room=10, lease=lease)
        return worker

    def claim(self, worker: str = "w1", queues: Sequence[str] = ("default",), limit: int = 10) -> list[Claim]:
        """Let a worker claim what is due."""
        return self.write(claiming.claim, worker, queues, limit)

    def claimed(self, worker: str = "w1", queues: Sequence[str] = ("default",)) -> list[str]:
        """Let a worker claim what is due; returns the ids in the order of taking."""
        return [claim.run_id for claim in self.claim(worker, queues)]

    def take(self, worker: str = "w1") -> Claim:
        """Let a worker claim the one run that is due."""
        (claim,) = self.claim(worker)
        return claim

    def settle(self, claim: Claim, end: End = COMPLETE) -> Settled:
        """End a held run."""
        return self.commit(claim, settling.settle, end)

    def hand_over(self, claim: Claim) -> None:
        """Let a held run go as it is."""
        self.write(leases.hand_over, claim.worker, {claim.run_id: None})

    def row(self, run_id: str) -> Any:
        """Return the whole row of a run."""
        with self.database.read() as connection:
            return connection.execute(select(Run).where(Run.id == run_id)).one()

    def status(self, run_id: str) -> Status:
        """Return a run's status."""
        return Status(self.row(run_id).status)

    def holder(self, thread: str = "t") -> str | None:
        """Return the run that has the thread's turn."""
        with self.database.read() as connection:
            return connection.execute(select(Run.id).where(Run.thread_id == thread, Run.turn)).scalar_one_or_none()

    def make_due(self, *run_ids: str) -> None:
        """Let the time pass until these runs are due."""
        self._change(update(Run).where(Run.id.in_(run_ids)).values(due_at=from_now(-1)))

    def end_lease(self, worker: str = "w1") -> None:
        """Let the time pass until the worker's lease has run out."""
        self._change(update(Worker).where(Worker.id == worker).values(lease_until=from_now(-1)))

    def now(self) -> datetime:
        """Return the database's time."""
        with self.database.read() as connection:
            return connection.execute(select(from_now())).scalar_one()

    def wait_for_blocked(self) -> None:
        """Wait until another connection to this PostgreSQL database waits for a lock."""
        blocked = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )

        def count() -> int:
            with self.database.read() as connection:
                return int(connection.execute(blocked).scalar_one())

        wait_until(count, "a connection that waits for a lock")

    def behind(self, connection: Connection, unit: Unit, *args: Any, meanwhile: Unit) -> Future[Any]:
        """Run `unit` here, start `meanwhile` on another connection, and return when that one waits for a lock."""
        unit(connection, *args)
        waiting = self._pool.submit(lambda: self.write(meanwhile))
        self.wait_for_blocked()
        return waiting

    def close(self) -> None:
        """Give the connections back."""
        self._pool.shutdown()
        self.database.close()

    def everything(self) -> dict[str, list[Any]]:
        """Return every row of every table, to show that nothing has changed."""
        with self.database.read() as connection:
            return {
                table.name: sorted(map(repr, connection.execute(select(table))))
                for table in Base.metadata.sorted_tables
            }

    def _change(self, statement: Any) -> None:
        with self.database.write() as connection:
            assert connection.execute(statement).rowcount
