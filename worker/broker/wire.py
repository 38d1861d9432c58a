"""What is on the wire: the names of queues and tasks, and Celery's configuration. JSON only."""

from typing import Any

from worker.settings import Settings

QUEUE_PREFIX = "runwright."
DEFAULT_QUEUE = "default"
DEFAULT_PRIORITY = 5
"""Of a run where none is named; batches are below it."""

RUN = "runs.run"  # no task of Celery's: the name under which each run is a row in Flower
SUBMIT = "runs.submit"
DISPATCH = "runs.dispatch"
RING_DUE = "maintenance.ring_due"
CLEAN = "maintenance.clean"


def celery_queue(queue: str) -> str:
    """Return the name of a run's queue as Celery and `-Q` know it."""
    return f"{QUEUE_PREFIX}{queue}"


def run_queue(celery_name: str) -> str | None:
    """Return our queue behind a name of Celery's, None where it is not one of ours."""
    return celery_name.removeprefix(QUEUE_PREFIX) if celery_name.startswith(QUEUE_PREFIX) else None


def configuration(settings: Settings) -> dict[str, Any]:
    """Return Celery's configuration; raises SettingsError where there is no broker."""
    return {
        "broker_url": settings.broker_url(),
        "result_backend": settings.result_backend_url(),
        "include": ["tasks.celery_tasks"],
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "task_default_queue": celery_queue(DEFAULT_QUEUE),
        # Names of our own keep other Celery applications on the same Redis out of `inspect` and of Flower.
        "control_exchange": "runwright",
        "event_exchange": "runwright.ev",
        "event_queue_prefix": "runwright.ev",
        # The engine's loop and its runs live in the worker's main process, which only this pool shares with its tasks.
        "worker_pool": "threads",
        "worker_concurrency": 4,
        "worker_consumer": "worker.broker.consumer:Consumer",
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "task_acks_late": True,
        "task_ignore_result": True,
        # Without it a result that is stored while Redis is away is lost (measured on Celery 5.7 with threads).
        "result_backend_always_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {"socket_connect_timeout": 2, "socket_timeout": 30},
        "beat_schedule": {
            RING_DUE: {"task": RING_DUE, "schedule": 10.0, "options": {"expires": 10}},
            CLEAN: {"task": CLEAN, "schedule": 3600.0, "options": {"expires": 3600}},
        },
        "beat_schedule_filename": str(settings.home / "beat-schedule"),
    }
