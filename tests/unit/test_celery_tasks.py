"""The doors for other code bases: what a task does with a database that is away."""

import uuid
from typing import Any

import psycopg
import pytest
from celery.exceptions import Retry
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tasks import runs
from tasks.celery_tasks import submit


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("INSERT", {}, psycopg.errors.AdminShutdown("shut down")),
        InterfaceError("INSERT", {}, psycopg.InterfaceError("closed")),
        InternalError("INSERT", {}, psycopg.errors.ReadOnlySqlTransaction("a standby")),
        PoolTimeout("every connection hangs"),
    ],
)
def test_a_submit_outlasts_a_failover(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Expected: the task is tried again for as long as it takes, and soon after the database is there again."""
    pauses: list[Any] = []

    def failing(_requests: Any) -> Any:
        raise error

    def retry(*, countdown: float, **_options: Any) -> Retry:
        pauses.append(countdown)
        return Retry()

    monkeypatch.setattr(runs, "submit_many", failing)
    monkeypatch.setattr(submit, "retry", retry)
    for retries in range(20):
        submit.push_request(id=str(uuid.uuid4()), retries=retries)
        with pytest.raises(Retry):
            submit.run(assistant="clerk", input="hello")
        submit.pop_request()
    assert len(pauses) == 20
    assert max(pauses) <= 30
    assert submit.max_retries is None
