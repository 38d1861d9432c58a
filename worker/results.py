"""AsyncResult(id).get(): the end of a run that came through the Celery door, stored in Celery's result backend."""

from collections.abc import Mapping
from typing import Any

from celery import Celery, states
from celery.exceptions import TaskRevokedError

from worker.lifecycle import Status
from worker.outlet import Outlet
from worker.store import telling
from worker.store.database import Database


class RunFailed(Exception):
    """The run did not complete; the text is its status and its error."""


class CeleryResults:
    """Stores each end under the run's id, which is the Celery task id of its submit; from the rows, at least once."""

    def __init__(self, app: Celery, database: Database, outlet: Outlet) -> None:
        self._app = app
        self._database = database
        self._outlet = outlet

    def __call__(self, name: str, fields: Mapping[str, Any]) -> None:
        """Look for untold ends when a run that is waited for has ended, and now and then for what others left."""
        if name == "worker.tended" or (name == "run.ended" and fields["claim"].store_result):
            self._outlet.put(self.tell)

    def tell(self) -> None:
        """Store every end that is not told yet."""
        while rows := self._untold():
            for row in rows:
                self._store(row)
            with self._database.write() as connection:
                telling.told(connection, [row.id for row in rows])

    def _untold(self) -> Any:
        with self._database.read() as connection:
            return telling.untold(connection)

    def _store(self, row: Any) -> None:
        """Store SUCCESS with the answer, REVOKED for a cancelled run, else FAILURE with the error."""
        backend = self._app.backend
        if row.status == Status.COMPLETED:
            result = {"id": row.id, "thread_id": row.thread_id, "status": row.status, "output_text": row.output_text}
            backend.store_result(row.id, result, states.SUCCESS)
        elif row.status == Status.CANCELLED:
            backend.store_result(row.id, TaskRevokedError("cancelled"), states.REVOKED)
        else:
            failed = RunFailed(f"{row.status}: {row.error_code}: {row.error_message}")
            backend.store_result(row.id, failed, states.FAILURE)
