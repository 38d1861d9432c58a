"""Choosing many runs: every condition holds, pages miss nothing, and the order is that of the threads' lines."""

from typing import Any

import pytest
from sqlalchemy import insert, update

from tests.conformance.ground import Ground
from worker.dbtime import from_now
from worker.errors import UsageError
from worker.lifecycle import Status
from worker.models import Batch, Run
from worker.store import choosing
from worker.store.choosing import Chosen, Place


def pages(ground: Ground, chosen: Chosen, limit: int, *, last_first: bool) -> list[Place]:
    """Return all chosen runs, so many at a time."""
    found: list[Place] = []
    with ground.database.read() as connection:
        while page := choosing.page(
            connection, chosen, found[-1] if found else None, last_first=last_first, limit=limit
        ):
            found += page
    return found


def test_pages_follow_the_lines(ground: Ground) -> None:
    """Expected: each run once, thread by thread, first to last or last to first; the count is the same."""
    runs = [ground.submit(thread) for _ in range(3) for thread in ("a", "b", "c")]
    chosen = Chosen(statuses=[Status.QUEUED])
    found = pages(ground, chosen, 2, last_first=False)
    assert [(one.thread_id, one.seq) for one in found] == [(t, n) for t in "abc" for n in (1, 2, 3)]
    assert {one.run_id for one in found} == set(runs)
    assert pages(ground, chosen, 2, last_first=True) == found[::-1]
    with ground.database.read() as connection:
        assert choosing.count(connection, chosen) == 9


def test_every_condition_must_hold(ground: Ground) -> None:
    """Expected: the one run that all of them fit; a run that ended is as old as its end."""
    with ground.database.write() as connection:
        connection.execute(insert(Batch).values(id="batch_1", assistant="helper", prompt="p"))
    one, *others = [ground.submit(f"t{n}", queue="q", batch_id="batch_1") for n in range(5)]
    changes: list[dict[str, Any]] = [
        {"error_code": "other"},
        {"queue": "r"},
        {"batch_id": None},
        {"finished_at": from_now(-7200)},
    ]
    for run, change in zip(others, changes, strict=True):
        ground._change(update(Run).where(Run.id == run).values(**change))
    same = Run.error_code.is_distinct_from("other")
    ground._change(update(Run).where(same).values(error_code="server_error", created_at=from_now(-86_400)))
    now = {"status": "failed", "finished_at": from_now(-60)}
    ground._change(update(Run).where(Run.finished_at.is_(None)).values(**now))
    ground._change(update(Run).values(status="failed"))
    what: dict[str, Any] = {
        "batch_id": "batch_1",
        "error": "server_error",
        "assistant": "helper",
        "queue": "q",
        "since": 3600.0,
    }
    with ground.database.read() as connection:
        chosen = Chosen(statuses=[Status.FAILED], **what)
        assert [p.run_id for p in choosing.page(connection, chosen, None, last_first=False)] == [one]
        assert choosing.count(connection, Chosen(statuses=[Status.QUEUED], **what)) == 0


def test_what_is_not_there_is_an_error(ground: Ground) -> None:
    """Expected: an unknown batch or assistant is named, and is not a choice of no runs."""
    with ground.database.read() as connection:
        with pytest.raises(UsageError, match="no batch 'nope'"):
            choosing.count(connection, Chosen(batch_id="nope"))
        with pytest.raises(UsageError, match=r"no assistant 'nope' \(there is: helper\)"):
            choosing.count(connection, Chosen(assistant="nope"))
