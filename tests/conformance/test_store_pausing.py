"""What is paused is not begun, what was begun goes on, and nobody spins or waits for what is held back."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import insert

from tests.conformance.ground import Ground
from worker.errors import UsageError
from worker.lifecycle import Event, Status
from worker.models import Batch
from worker.store import asking, assistants, claiming, leases, overview, pausing, settling, submitting
from worker.store.pausing import Kind
from worker.store.settling import End

PASSING = End(Event.FAIL, error_code="server_error")


def still_due(ground: Ground) -> bool:
    with ground.database.read() as connection:
        return claiming.still_due(connection, ["default"])


def due_queues(ground: Ground) -> list[str]:
    with ground.database.read() as connection:
        return claiming.due_queues(connection)


def look(ground: Ground) -> overview.Overview:
    with ground.database.read() as connection:
        return overview.overview(connection)


@pytest.fixture
def paused(ground: Ground) -> dict[Kind, tuple[str, dict[str, Any]]]:
    """Return for each kind what to pause, and the options of a run that this holds back."""
    with ground.database.write() as connection:
        other = assistants.apply(connection, "other", {"model": "m"})[0].id
        connection.execute(insert(Batch).values(id="b1", assistant="helper", prompt="p"))
    return {
        Kind.QUEUE: ("default", {}),
        Kind.ASSISTANT: ("other", {"assistant_id": other, "assistant": "other"}),
        Kind.BATCH: ("b1", {"batch_id": "b1"}),
    }


def new(ground: Ground, thread: str, **options: Any) -> str:
    """Submit a run, of another assistant where the options say so."""
    run = replace(ground.new(thread), **options)
    return ground.write(submitting.submit, [run])[0].id


@pytest.mark.parametrize("kind", Kind)
def test_what_is_paused_is_not_begun_until_it_is_resumed(
    ground: Ground, paused: dict[Kind, tuple[str, dict[str, Any]]], kind: Kind
) -> None:
    """Claim, look and doorbell agree: nothing is due; other runs of the queue are, and after the resume all are."""
    name, options = paused[kind]
    ground.boot()
    held_back = new(ground, "t1", **options)
    ground.write(pausing.pause, kind, name)
    assert (ground.claimed(), still_due(ground), due_queues(ground)) == ([], False, [])
    if kind is not Kind.QUEUE:
        other = new(ground, "t2")
        assert still_due(ground)
        assert due_queues(ground) == ["default"]
        assert ground.claimed() == [other]
    ground.write(pausing.resume, kind, name)
    assert (still_due(ground), due_queues(ground)) == (True, ["default"])
    assert ground.claimed() == [held_back]


def test_what_was_begun_goes_on(ground: Ground) -> None:
    """A run that its worker left behind is taken by another; a further attempt of one that failed is not begun."""
    ground.boot()
    left, failed = ground.submit("t1"), ground.submit("t2")
    claims = {claim.run_id: claim for claim in ground.claim()}
    ground.write(pausing.pause, Kind.QUEUE, "default")
    ground.commit(claims[failed], settling.retry, 0.0, PASSING, 60.0)
    ground.end_lease()
    assert ground.write(leases.reap) == 1
    ground.boot("w2")
    assert ground.claimed("w2") == [left]
    assert not still_due(ground)
    ground.write(pausing.resume, Kind.QUEUE, "default")
    assert ground.claimed("w2") == [failed]


def test_a_paused_run_can_be_cancelled(ground: Ground) -> None:
    """From the queue at once; one whose owner queued it again after the cancel was asked for is taken to be ended."""
    ground.boot()
    waiting = ground.submit("t1")
    ground.write(pausing.pause, Kind.QUEUE, "default")
    ground.write(asking.ask_cancel, waiting)
    assert ground.status(waiting) is Status.CANCELLED

    ground.write(pausing.resume, Kind.QUEUE, "default")
    asked = ground.submit("t2")
    claim = ground.take()
    ground.write(asking.ask_cancel, asked)
    ground.commit(claim, settling.retry, 300.0, PASSING, 60.0)
    ground.write(pausing.pause, Kind.QUEUE, "default")
    assert ground.claimed() == [asked]


def test_a_pause_is_listed_with_its_reason(ground: Ground) -> None:
    """Pausing twice is as good as once, and only a new reason takes the place of the old."""
    assert ground.write(pausing.pause, Kind.QUEUE, "default", "the provider is down")
    assert not ground.write(pausing.pause, Kind.QUEUE, "default")
    assert [(one.kind, one.name, one.reason) for one in look(ground).pauses] == [
        ("queue", "default", "the provider is down")
    ]
    ground.write(pausing.pause, Kind.QUEUE, "default", "still down")
    assert [one.reason for one in look(ground).pauses] == ["still down"]


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        (Kind.ASSISTANT, "nobody", r"no assistant 'nobody' \(there is: helper\); `runwright assistants apply"),
        (Kind.BATCH, "b0", "no batch 'b0'; `runwright batch list` shows the newest"),
        (Kind.QUEUE, "", "it has 1 to 100 characters"),
        (Kind.QUEUE, "q" * 101, "it has 1 to 100 characters"),
    ],
)
def test_what_is_not_there_cannot_be_paused(ground: Ground, kind: Kind, name: str, words: str) -> None:
    """A pause with a typing error would hold nothing back, so it is refused, as is a resume of what is not paused."""
    with pytest.raises(UsageError, match=words):
        ground.write(pausing.pause, kind, name)
    with pytest.raises(UsageError, match="is not paused"):
        ground.write(pausing.resume, kind, name)
