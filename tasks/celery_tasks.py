"""The Celery tasks: each of milliseconds, named explicitly, JSON in; none of them ever waits for a provider."""

import json
from dataclasses import fields
from functools import partial
from typing import Any

from celery import shared_task
from celery.exceptions import Ignore
from pydantic import TypeAdapter, ValidationError

from tasks import runs
from worker.broker import doorbell, wire
from worker.care import maintenance, messenger
from worker.errors import UsageError
from worker.producer import producer
from worker.store.database import PASSING

_REQUEST = TypeAdapter(runs.RunRequest)
_CONVERSATIONS = 500
"""Conversations that one `clean` deletes at most: the one task that takes seconds, of one of the pool's threads."""


@shared_task(name=wire.DISPATCH, send_events=False)
def dispatch(queue: str) -> None:
    """Wake this worker's engine: there is something to claim in this queue."""
    producer().doorbell.heard(queue)
    doorbell.answer()


@shared_task(
    name=wire.SUBMIT,
    bind=True,
    send_events=False,
    ignore_result=False,  # what cannot be run ends here, and whoever waits on the task's id must be told
    throws=(UsageError,),
    # A database that is away is no reason to lose a submit that the broker has accepted.
    autoretry_for=PASSING,
    retry_backoff=True,
    retry_backoff_max=30,  # seconds; Celery's ten minutes are longer than most failovers
    max_retries=None,
)
def submit(self: Any, **request: Any) -> dict[str, str]:
    """Accept a run from another code base; its id is this task's id, so that a redelivery makes no second run.

    The keywords are those of tasks.runs.submit; available_at is ISO 8601 text. A known idempotency key gives at once
    the id and status of the run that it had already made.
    """
    run = runs.submit_many([_request(self.request.id, request)])[0]
    if run.id != self.request.id:
        return {"id": run.id, "thread_id": run.thread_id, "status": run.status().value}
    # The result under this id is the end of the run; Ignore keeps Celery from storing one now.
    raise Ignore


def _request(run_id: str, asked: dict[str, Any]) -> runs.RunRequest:
    known = {one.name for one in fields(runs.RunRequest)} - {"id", "batch_id", "store_result"}
    if unknown := sorted(set(asked) - known):
        raise UsageError(f"{wire.SUBMIT}: unknown argument {unknown[0]!r}")
    try:
        # Strictly as JSON: what producers in another code base send has no types that were checked before.
        return _REQUEST.validate_json(json.dumps({**asked, "id": run_id, "store_result": True}), strict=True)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise UsageError(f"{wire.SUBMIT}: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from None


@shared_task(name=wire.RING_DUE, send_events=False)
def ring_due() -> None:
    """Ring for queues with due runs, in case a doorbell was lost."""
    door = producer()
    maintenance.ring_due(door.database, door.doorbell.ring)


@shared_task(name=wire.CLEAN)
def clean() -> None:
    """Delete what is old: events of ended runs, and conversations that no run needs any more, so many at a time."""
    door = producer()
    send = partial(messenger.send, door.settings)
    maintenance.clean(door.database, door.settings, send, most=_CONVERSATIONS)
