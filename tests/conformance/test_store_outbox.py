"""What is told outside: it enters with the end it tells of, is taken by one worker at a time, and stays until sent."""

from itertools import chain
from typing import Any

import pytest
from sqlalchemy import update

from tests.conformance.ground import COMPLETE, Ground
from worker.broker.delivery import task_id
from worker.dbtime import from_now
from worker.lifecycle import Event
from worker.models import Outgoing
from worker.store import asking, held, outbox, settling
from worker.store.outbox import Letter
from worker.store.settling import End

HOOK = {"task": "shop.done", "args": [7], "kwargs": {"a": 1}, "queue": "shop", "immutable": False}


def take(ground: Ground, seconds: float = 600.0, limit: int = 100) -> list[Letter]:
    return ground.write(outbox.take, seconds, limit)


def brief(letters: list[Letter]) -> list[tuple[str, str]]:
    return [(letter.kind, letter.subject) for letter in letters]


def ends(ground: Ground, *run_ids: str) -> list[Any]:
    with ground.database.read() as connection:
        return list(outbox.ends(connection, run_ids))


def test_an_end_enters_the_outbox_with_what_is_to_be_told(ground: Ground) -> None:
    """Expected: nothing before the end; then a letter for the result and one for the hook, for those who asked."""
    both = ground.submit("a", store_result=True, on_end=HOOK)
    silent = ground.submit("b")
    ground.boot()
    claims = {claim.run_id: claim for claim in ground.claim()}
    asked = {run_id: (claim.store_result, claim.on_end) for run_id, claim in claims.items()}
    assert asked == {both: (True, HOOK), silent: (False, None)}
    assert take(ground) == []
    for claim in claims.values():
        ground.settle(claim, End(Event.FAIL, error_code="bad", error_message="no good"))
    result, hook = take(ground)
    assert brief([result, hook]) == [("result", both), ("run", both)]
    assert result.payload == {}
    told = {"id": both, "thread_id": "a", "batch_id": None, "status": "failed", "error_code": "bad"}
    assert hook.payload == {"hook": HOOK, "told": told}
    (row,) = ends(ground, both)
    assert (row.thread_id, row.status, row.output_text, row.error_message) == ("a", "failed", None, "no good")


@pytest.mark.parametrize("fails", [True, False])
def test_the_letter_is_written_with_the_end_or_not_at_all(ground: Ground, fails: bool) -> None:
    """Expected: a transaction that is rolled back leaves neither the end nor its letter."""
    run = ground.submit(on_end=HOOK)
    ground.boot()
    claim = ground.take()
    with ground.database.engine.connect() as connection, connection.begin() as transaction:
        held.commit(connection, claim, settling.settle, COMPLETE)
        if fails:
            transaction.rollback()
    assert (len(take(ground)), ground.row(run).finished_at is None) == ((0, True) if fails else (1, False))


def test_a_run_that_is_cancelled_in_line_is_told(ground: Ground) -> None:
    """Expected: both letters although no worker has ever held it; a second cancel tells nothing more."""
    ground.submit()
    waiting = ground.submit(store_result=True, on_end=HOOK)
    for _ in range(2):
        ground.write(asking.ask_cancel, waiting)
    letters = take(ground)
    assert brief(letters) == [("result", waiting), ("run", waiting)]
    assert letters[1].payload["told"]["status"] == "cancelled"


@pytest.mark.parametrize("delay", [0.0, 3600.0])
def test_a_run_that_will_be_tried_again_has_no_end_to_tell(ground: Ground, delay: float) -> None:
    """Expected: nothing, neither while it waits for its next attempt nor while that one is under way."""
    ground.submit(store_result=True, on_end=HOOK)
    ground.boot()
    ground.commit(ground.take(), settling.retry, delay, End(Event.FAIL, error_code="busy"), 60.0)
    ground.claim()
    assert take(ground) == []


def test_a_reopened_run_has_no_result_until_it_ends_again(ground: Ground) -> None:
    """Expected: the hook tells each end as it was, under ids of their own; the result is the last one."""
    run = ground.submit(store_result=True, on_end=HOOK)
    ground.boot()
    ground.settle(ground.take(), End(Event.FAIL, error_code="bad"))
    first = take(ground)
    ground.write(outbox.sent, [letter.id for letter in first])
    ground.write(asking.reopen, run)
    assert ends(ground, run) == []
    ground.settle(ground.take())
    second = take(ground)
    assert [letter[1].payload["told"]["status"] for letter in (first, second)] == ["failed", "completed"]
    assert task_id(first[1]) != task_id(second[1])
    assert [row.status for row in ends(ground, run)] == ["completed"]


def test_what_one_takes_no_other_takes_until_its_time_is_over(ground: Ground) -> None:
    """Expected: taken once; given back or overdue it is taken again, the same letter with the same task id."""
    ground.write(outbox.put, outbox.RUN, "r", {"hook": HOOK, "told": {}})
    (first,) = take(ground)
    assert take(ground) == []
    with ground.database.read() as connection:
        assert not outbox.waiting(connection)
    ground.write(outbox.give_back, [first.id])
    (second,) = take(ground)
    with ground.database.write() as connection:
        connection.execute(update(Outgoing).values(taken_until=from_now(-1)))
        assert outbox.waiting(connection)
    (third,) = take(ground)
    assert first == second == third
    assert len({task_id(letter) for letter in (first, second, third)}) == 1
    ground.write(outbox.sent, [third.id])
    ground.write(outbox.give_back, [third.id])
    assert take(ground, seconds=-1) == []


def test_a_number_never_comes_again(ground: Ground) -> None:
    """Expected: a sender that was frozen past its time deletes the letter it had, never one that came later."""
    ground.write(outbox.put, outbox.RUN, "early", {})
    frozen = take(ground, seconds=-1)
    ground.write(outbox.sent, [letter.id for letter in take(ground)])
    ground.write(outbox.put, outbox.RUN, "late", {})
    ground.write(outbox.sent, [letter.id for letter in frozen])
    assert brief(take(ground)) == [("run", "late")]


def test_the_oldest_come_first_and_some_at_a_time(ground: Ground) -> None:
    """Expected: three rounds take 250 letters, each once, in the order in which they came."""
    with ground.database.write() as connection:
        for number in range(250):
            outbox.put(connection, outbox.RUN, str(number), {})
    rounds = [[letter.subject for letter in take(ground)] for _ in range(4)]
    assert [len(part) for part in rounds] == [100, 100, 50, 0]
    assert list(chain(*rounds)) == [str(number) for number in range(250)]


def test_two_workers_never_wait_for_each_other(postgres_url: str) -> None:
    """Expected: on PostgreSQL a letter in somebody's open transaction is stepped over."""
    ground = Ground(postgres_url)
    for subject in "ab":
        ground.write(outbox.put, outbox.RUN, subject, {})
    with ground.database.write() as connection:
        assert brief(outbox.take(connection, 600.0, 1)) == [("run", "a")]
        assert brief(take(ground)) == [("run", "b")]
    ground.close()
