"""A batch ends once: when it was submitted whole and the last of its runs has ended, whoever sees it first."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select

from tests.conformance.ground import Ground
from worker.lifecycle import Event
from worker.models import Batch, Outgoing
from worker.store import asking, batches
from worker.store.batches import DocumentRow
from worker.store.settling import End

HOOK: dict[str, Any] = {"task": "shop.done", "args": [], "kwargs": {}, "queue": None, "immutable": False}


def made(
    ground: Ground, runs: int, *, unreadable: int = 0, sealed: bool = True, hook: Any = HOOK
) -> tuple[str, list[str]]:
    """Submit a batch and return its id and those of its runs."""
    batch_id = ground.write(batches.create, "helper", "p", hook)
    ids = [ground.submit(None, batch_id=batch_id) for _ in range(runs)]
    rows = [DocumentRow(at, f"{at}.txt", 1, run_id, None) for at, run_id in enumerate(ids)]
    rows += [DocumentRow(runs + at, "bad.pdf", None, None, "damaged") for at in range(unreadable)]
    ground.write(batches.add, batch_id, rows)
    if sealed:
        ground.write(batches.seal, batch_id)
    return batch_id, ids


def look(ground: Ground) -> None:
    """End every batch of which no run is left, as a worker's delivery does."""
    with ground.database.read() as connection:
        ending = batches.ending(connection)
    for batch_id in ending:
        ground.write(batches.end, batch_id)


def told(ground: Ground) -> list[dict[str, Any]]:
    """Return what the hooks of batches are told."""
    with ground.database.read() as connection:
        payloads = select(Outgoing.payload).where(Outgoing.kind == "batch").order_by(Outgoing.id)
        return [payload["told"] for payload in connection.execute(payloads).scalars()]


def test_the_last_end_ends_the_batch(ground: Ground) -> None:
    """Expected: told once, with the count of each status, only after all of its runs have ended, in any order."""
    batch_id, ids = made(ground, 3, unreadable=2)
    for run_id in (ids[2], ids[0]):
        ground.write(asking.ask_cancel, run_id)
        look(ground)
        assert told(ground) == []
    ground.boot()
    claim = ground.take()
    assert claim.batch_id == batch_id
    ground.settle(claim, End(Event.FAIL, error_code="bad"))
    for _ in range(2):
        look(ground)
    statuses = {"cancelled": 2, "failed": 1, "unreadable": 2}
    assert told(ground) == [{"id": batch_id, "statuses": statuses, "documents": 5}]


@pytest.mark.parametrize("options", [{"sealed": False}, {"hook": None}])
def test_one_that_nobody_awaits_is_not_told(ground: Ground, options: dict[str, Any]) -> None:
    """Expected: nothing for a batch that is still being submitted, nor for one without a hook."""
    batch_id, _ = made(ground, 0, unreadable=1, **options)
    look(ground)
    assert not ground.write(batches.end, batch_id)
    assert told(ground) == []
    with ground.database.read() as connection:
        assert connection.execute(select(Batch.ended_at)).scalar_one() is None


def test_a_batch_of_unreadable_documents_ends(ground: Ground) -> None:
    """Expected: told although it has no run at all."""
    batch_id, _ = made(ground, 0, unreadable=2)
    look(ground)
    assert told(ground) == [{"id": batch_id, "statuses": {"unreadable": 2}, "documents": 2}]


def test_a_run_that_is_tried_again_makes_a_further_end(ground: Ground) -> None:
    """Expected: told once more when the reopened run has ended, and not before."""
    _, (run,) = made(ground, 1)
    ground.write(asking.ask_cancel, run)
    look(ground)
    ground.write(asking.reopen, run)
    look(ground)
    assert [one["statuses"] for one in told(ground)] == [{"cancelled": 1}]
    ground.boot()
    ground.settle(ground.take())
    look(ground)
    assert [one["statuses"] for one in told(ground)] == [{"cancelled": 1}, {"completed": 1}]


def test_many_looks_at_once_tell_once(ground: Ground) -> None:
    """Expected: of eight workers that see the end at the same time one tells it."""
    _, (run,) = made(ground, 1)
    ground.write(asking.ask_cancel, run)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: look(ground), range(8)))
    assert len(told(ground)) == 1


def test_a_run_reopened_while_the_end_is_written_is_not_missed(postgres_url: str) -> None:
    """Expected: whichever comes first, the batch is told of the reopened run's end: here the end waits and finds it."""
    ground = Ground(postgres_url)
    batch_id, (run,) = made(ground, 1)
    ground.write(asking.ask_cancel, run)
    with ground.database.write() as connection:
        ending = ground.behind(connection, asking.reopen, run, meanwhile=lambda c: batches.end(c, batch_id))
    assert ending.result(20) is False
    assert told(ground) == []
    ground.close()
