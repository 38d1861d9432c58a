"""Ends that Celery's result backend is to hear of: each is kept until it was told, whoever ended the run."""

import pytest

from tests.conformance.ground import Ground
from worker.lifecycle import Event
from worker.store import asking, settling, telling
from worker.store.settling import End


def untold(ground: Ground) -> list[tuple[str, str]]:
    """Return id and status of the ends that are still to be told."""
    with ground.database.read() as connection:
        return [(row.id, row.status) for row in telling.untold(connection)]


def test_an_end_is_untold_until_it_was_told(ground: Ground) -> None:
    """Expected: only ended runs that somebody waits for, with all that is to be told, and once told never again."""
    run, silent = ground.submit("a", store_result=True), ground.submit("b")
    ground.boot()
    assert untold(ground) == []
    for claim in ground.claim():
        ground.settle(claim, End(Event.FAIL, error_code="bad", error_message="no good"))
    with ground.database.read() as connection:
        (row,) = telling.untold(connection)
    assert (row.id, row.thread_id, row.status, row.output_text) == (run, "a", "failed", None)
    assert (row.error_code, row.error_message) == ("bad", "no good")
    ground.write(telling.told, [run])
    assert untold(ground) == []
    assert ground.row(silent).status == "failed"


@pytest.mark.parametrize("delay", [0.0, 3600.0])
def test_a_run_that_will_be_tried_again_has_no_end_to_tell(ground: Ground, delay: float) -> None:
    """Expected: nothing, neither while it waits for its next attempt nor while that one is under way."""
    ground.submit(store_result=True)
    ground.boot()
    ground.write(settling.retry, ground.take(), delay, End(Event.FAIL, error_code="busy"))
    assert untold(ground) == []
    ground.claim()
    assert untold(ground) == []


def test_a_run_that_is_cancelled_in_line_is_told(ground: Ground) -> None:
    """Expected: untold although no worker has ever held it."""
    ground.submit()
    waiting = ground.submit(store_result=True)
    ground.write(asking.ask_cancel, waiting)
    assert untold(ground) == [(waiting, "cancelled")]


def test_a_reopened_run_takes_its_untold_end_back(ground: Ground) -> None:
    """Expected: the end that nobody was told is gone; the one of the further attempt is told."""
    run = ground.submit(store_result=True)
    ground.boot()
    ground.settle(ground.take(), End(Event.FAIL, error_code="bad"))
    ground.write(asking.reopen, run)
    assert untold(ground) == []
    ground.settle(ground.take())
    assert untold(ground) == [(run, "completed")]


def test_the_oldest_ends_come_first_and_some_at_a_time(ground: Ground) -> None:
    """Expected: three rounds tell 250 ends, each once, in the order in which they came."""
    runs = [ground.submit(None, store_result=True) for _ in range(250)]
    for run in runs:
        ground.write(asking.ask_cancel, run)
    heard: list[str] = []
    while some := [run for run, _ in untold(ground)]:
        assert len(some) <= 100
        heard += some
        ground.write(telling.told, some)
    assert heard == runs
