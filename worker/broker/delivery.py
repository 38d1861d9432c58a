"""Sends what the outbox holds: ends to Celery's result backend, and the tasks that producers asked for as hooks."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import redis
import structlog
from celery import Celery, states
from celery.exceptions import TaskRevokedError
from kombu.exceptions import OperationalError
from sqlalchemy import Connection

from worker.broker import wire
from worker.broker.outlet import Outlet
from worker.crashpoints import reach
from worker.lifecycle import Status
from worker.settings import Settings
from worker.store import batches, outbox
from worker.store.database import Database
from worker.store.outbox import Letter

P = ParamSpec("P")
T = TypeVar("T")
_log = structlog.get_logger(__name__)
_AWAY = (OperationalError, redis.ConnectionError, redis.TimeoutError, OSError)
_CHUNK = 100
_TERM = 30.0  # seconds that a chunk may take; what one letter's own error keeps back is tried again after it
_LIMIT = 5.0  # seconds for one answer of the result backend
_GATHER = 0.03  # seconds; a look at the outbox costs as much as a request
_CELERYS_QUEUE = "celery"
_NAMES = uuid.UUID("5b1a4b3e-6f0e-4a53-9c0d-2f8a54f1a9f7")


class RunFailed(Exception):
    """The run did not complete; the text is its status and its error."""


class Delivery:
    """Looks when a run that somebody waits for has ended, and now and then for what others left.

    It sends on the outlet's thread: a lost Redis must not hold up the engine, and what could not be sent stays.
    """

    def __init__(self, settings: Settings, database: Database, outlet: Outlet) -> None:
        self._database = database
        self._outlet = outlet
        self._hooks = _hooks_app(settings)
        self._results = _results_app(settings)
        self._away = False

    def __call__(self, name: str, fields: Mapping[str, Any]) -> None:
        """Queue a delivery; many ends at once need only one, and a broker that is away only the tick's."""
        if name == "worker.tended":
            self._outlet.put(self.deliver)
        elif name == "run.ended" and not self._away and _is_awaited(fields["claim"]):
            self._outlet.soon(self.deliver, _GATHER)

    def deliver(self) -> None:
        """Send some of what waits, and queue another round where there may be more."""
        with self._database.read() as connection:
            ending, waiting = batches.ending(connection), outbox.waiting(connection)
        for batch_id in ending:
            self._write(batches.end, batch_id)
        if not (ending or waiting):
            return
        letters = self._write(outbox.take, _TERM, _CHUNK)
        self._send_all(letters)
        if len(letters) == _CHUNK and not self._away:
            self._outlet.put(self.deliver)

    def _send_all(self, letters: Sequence[Letter]) -> None:
        """Send until the broker is away; a letter that fails by itself is left for later and holds up no other."""
        sent, left = [], [letter.id for letter in letters]
        self._away = False
        for letter in letters:
            try:
                self._send(letter)
            except _AWAY as error:
                self._away = True
                _log.warning("delivery_waits", error=type(error).__name__)
                break
            except Exception as error:  # noqa: BLE001 - result backends raise what they like
                _log.warning("delivery_failed", kind=letter.kind, subject=letter.subject, error=type(error).__name__)
            else:
                sent.append(letter.id)
            left.remove(letter.id)
        if sent:
            self._write(outbox.sent, sent)
        if left:
            self._write(outbox.give_back, left)

    def _send(self, letter: Letter) -> None:
        reach("outside.deliver.before")
        if letter.kind != outbox.RESULT:
            self._send_hook(letter)
        elif row := self._end(letter.subject):  # else it was reopened, and its next end has a letter of its own
            self._store_result(row)
        reach("outside.deliver.after")

    def _end(self, run_id: str) -> Any:
        """Read the end as it is now: a sender that was slow must not tell an old one over a newer."""
        with self._database.read() as connection:
            return next(iter(outbox.ends(connection, [run_id])), None)

    def _send_hook(self, letter: Letter) -> None:
        """Send the task under an id that is the same each time this letter is sent."""
        hook = letter.payload["hook"]
        told = [] if hook["immutable"] else [letter.payload["told"]]
        self._hooks.send_task(
            hook["task"],
            [*told, *hook["args"]],
            hook["kwargs"],
            task_id=task_id(letter),
            queue=hook["queue"] or _CELERYS_QUEUE,
            serializer="json",
            retry=False,
        )

    def _store_result(self, row: Any) -> None:
        """Store SUCCESS with the answer, REVOKED for a cancelled run, else FAILURE with the error."""
        backend = self._results.backend
        if row.status == Status.COMPLETED:
            result = {"id": row.id, "thread_id": row.thread_id, "status": row.status, "output_text": row.output_text}
            backend.store_result(row.id, result, states.SUCCESS)
        elif row.status == Status.CANCELLED:
            backend.store_result(row.id, TaskRevokedError("cancelled"), states.REVOKED)
        else:
            failed = RunFailed(f"{row.status}: {row.error_code}: {row.error_message}")
            backend.store_result(row.id, failed, states.FAILURE)

    def _write(self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        reach(f"commit.{unit.__name__}.before")
        with self._database.write() as connection:
            result = unit(connection, *args, **kwargs)
        reach(f"commit.{unit.__name__}.after")
        return result


def _is_awaited(claim: Any) -> bool:
    return bool(claim.store_result or claim.on_end or claim.batch_id)


def task_id(letter: Letter) -> str:
    """Return the Celery id of a hook's message.

    A row's number alone is not enough: another database on the same broker has it too, as one that is made anew.
    """
    return str(uuid.uuid5(_NAMES, f"{letter.kind}:{letter.subject}:{letter.created_at.isoformat()}:{letter.id}"))


def _hooks_app(settings: Settings) -> Celery:
    """Return what sends hooks: it gives up soon, and has no result backend, which would wait for each one's result."""
    app = Celery("runwright-hooks", set_as_current=False)
    configuration = wire.configuration(settings)
    transport = {**configuration["broker_transport_options"], "max_retries": 0}
    app.conf.update(configuration, result_backend=None, broker_transport_options=transport)
    return app


def _results_app(settings: Settings) -> Celery:
    """Return what stores results and gives up soon: the outbox tries again, and the outlet has more to do."""
    app = Celery("runwright-results", set_as_current=False)
    app.conf.update(
        wire.configuration(settings),
        result_backend_always_retry=False,
        result_backend_transport_options={"retry_policy": {"max_retries": 0}},
        redis_socket_connect_timeout=_LIMIT,
        redis_socket_timeout=_LIMIT,
    )
    return app
