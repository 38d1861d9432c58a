"""Each run as one row in Flower: what happens to it is sent as Celery's task events, under the name runs.run.

The fields are those of Celery's own worker (docs/userguide/monitoring.rst, "Task Events"); the uuid is the run's id.
"""

import json
from collections import deque
from collections.abc import Mapping
from time import time
from typing import Any

from celery import Celery

from worker.broker import wire
from worker.broker.outlet import Outlet
from worker.lifecycle import Status
from worker.store.claiming import Claim

_MOST = 10_000  # events that wait for their message; the oldest give way
_GATHER = 0.2  # seconds; people look at the rows
_ENDS = {Status.COMPLETED: "task-succeeded", Status.CANCELLED: "task-revoked"}


class FlowerEvents:
    """Turns run events into task events; it counts an attempt after the first as a retry."""

    def __init__(self, app: Celery, node: str, outlet: Outlet) -> None:
        self._app = app
        self._node = node
        self._outlet = outlet
        self._dispatcher: Any = None
        self._told: deque[tuple[str, dict[str, Any]]] = deque(maxlen=_MOST)

    def __call__(self, name: str, fields: Mapping[str, Any]) -> None:
        """Keep the task events of one event of ours, to be sent soon with those that come meanwhile."""
        if told := self._translate(name, fields):
            self._told += [(event, {**values, "timestamp": time()}) for event, values in told]
            self._outlet.soon(self._send_all, _GATHER)

    def _translate(self, name: str, fields: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        claim = fields.get("claim")
        if claim is None:
            return []
        base = {"uuid": claim.run_id}
        if name == "run.claimed":
            return [("task-received", {**base, **_received(claim)}), ("task-started", base)]
        if name == "run.retried":
            return [("task-retried", {**base, "exception": _error(fields), "traceback": ""})]
        if name == "run.ended":
            return [self._ended(base, Status(fields["status"]), fields)]
        return []

    def _ended(self, base: dict[str, Any], status: Status, fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        event = _ENDS.get(status, "task-failed")
        if event == "task-succeeded":
            return event, {**base, "result": repr(status.value), "runtime": fields["seconds"]}
        if event == "task-revoked":
            return event, {**base, "terminated": False, "signum": None, "expired": False}
        return event, {**base, "exception": f"{status.value}: {_error(fields)}", "traceback": ""}

    def _send_all(self) -> None:
        """Send what was told on a connection of our own, in one message; a broken one is made anew for the next."""
        if self._dispatcher is None:
            connection = self._app.connection_for_write()
            options = {"hostname": self._node, "buffer_group": {"task"}, "buffer_limit": _MOST}
            self._dispatcher = self._app.events.Dispatcher(connection, buffer_while_offline=False, **options)
        try:
            while self._told:
                event, fields = self._told.popleft()
                self._dispatcher.send(event, **fields)
            self._dispatcher.flush(errors=False)
        except Exception:
            self._dispatcher = None
            raise


def _received(claim: Claim) -> dict[str, Any]:
    """Arguments are names and ids, never text."""
    return {
        "name": wire.RUN,
        "args": json.dumps([claim.assistant, claim.thread_id]),
        "kwargs": "{}",
        "retries": claim.attempt - 1,
        "eta": None,
        "expires": None,
        "root_id": claim.run_id,
        "parent_id": None,
    }


def _error(fields: Mapping[str, Any]) -> str:
    return str(fields.get("code") or "unknown")
