"""Celery's remote control where it means runs: `celery inspect runs`, and revoking a run's id cancels it."""

from collections.abc import Callable
from typing import Any

import structlog
from celery.worker import control
from celery.worker.control import Panel, control_command, inspect_command
from sqlalchemy.exc import SQLAlchemyError

from worker.errors import UnknownRun

_log = structlog.get_logger(__name__)
_revoke_task = control.revoke
_cancel: Callable[[str], object] = lambda _run_id: None  # noqa: E731 - bound when the worker has a database


def install(cancel: Callable[[str], object]) -> None:
    """Let revoke reach runs through this function."""
    global _cancel  # noqa: PLW0603 - Celery's panel is global, and so is what its commands act on
    _cancel = cancel


@inspect_command()
def runs(state: Any, **_options: Any) -> list[dict[str, Any]]:
    """List of runs this worker drives."""
    engine = getattr(state.consumer.controller, "runwright_engine", None)
    return engine.holds() if engine else []


@control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(state: Any, task_id: Any, terminate: bool = False, signal: Any = None, **options: Any) -> Any:
    """Revoke task by task id, and cancel the runs of these ids."""
    ids = {task_id} if isinstance(task_id, str) else set(task_id or ())
    # Celery would store REVOKED at once; the result of a run is told when it has ended.
    tasks = [one for one in sorted(ids) if not _cancelled(one)]
    if not tasks:
        return {"ok": f"runs {', '.join(sorted(ids))} asked to cancel"}
    return _revoke_task(state, tasks, terminate=terminate, signal=signal, **options)


def _cancelled(run_id: str) -> bool:
    """Ask for the cancel of a run; false where this is an ordinary task's id, or the database is away."""
    try:
        _cancel(run_id)
    except UnknownRun:
        return False
    except SQLAlchemyError as error:
        _log.warning("revoke_failed", run_id=run_id, error=type(error).__name__)
        return False
    return True


assert Panel.data["revoke"] is revoke  # noqa: S101 - the panel keeps the command registered last
