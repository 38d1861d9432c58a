"""A run's row enters: its place in the line, the turn if it is free, and once for each idempotency key."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import event, func, select

from tests.conformance.ground import Ground
from worker.errors import KeyReused, ThreadBusy
from worker.models import Run
from worker.store import submitting
from worker.store.submitting import Accepted, NewRun

THREADS = ["b", None, "a", "b", "a", None, "b"]


def places(ground: Ground, runs: list[Accepted]) -> list[tuple[int, bool, bool]]:
    """Return place, turn and whether it has a due time, of each run."""
    rows = [ground.row(run.id) for run in runs]
    return [(row.seq, row.turn, row.due_at is not None) for row in rows]


def test_the_first_run_of_a_thread_has_the_turn(ground: Ground) -> None:
    """Expected: places 1, 2, 3; the turn and a due time for the first alone; the others wait in the queue."""
    runs = [ground.write(submitting.submit, [ground.new()])[0] for _ in range(3)]
    assert places(ground, runs) == [(1, True, True), (2, False, False), (3, False, False)]
    assert {run.status for run in runs} == {"queued"}
    assert all(run.new for run in runs)


def test_a_run_without_a_thread_opens_its_own(ground: Ground) -> None:
    """Expected: two runs, two threads, both with the turn."""
    runs = ground.write(submitting.submit, [ground.new(thread=None), ground.new(thread=None)])
    assert places(ground, runs) == [(1, True, True), (1, True, True)]
    assert runs[0].thread_id != runs[1].thread_id


def test_bulk_is_the_same_as_one_by_one(ground: Ground) -> None:
    """Expected: places and turns do not tell in how many transactions the runs came, nor over which threads."""
    bulk = ground.write(submitting.submit, [ground.new(thread) for thread in THREADS])
    single = [ground.write(submitting.submit, [ground.new(f"{t}2" if t else None)])[0] for t in THREADS]
    assert places(ground, bulk) == places(ground, single)
    assert [run.thread_id for run in bulk if run.thread_id in {"a", "b"}] == ["b", "a", "b", "a", "b"]


def test_bulk_goes_behind_who_waits_already(ground: Ground) -> None:
    """Expected: a thread whose turn is taken gives none to the newcomers."""
    first = ground.submit("a")
    ground.write(submitting.submit, [ground.new("a"), ground.new("a")])
    assert ground.holder("a") == first
    with ground.database.read() as connection:
        assert list(connection.execute(select(Run.seq).order_by(Run.seq)).scalars()) == [1, 2, 3]


@pytest.mark.parametrize(("thread", "count"), [(None, 3), ("new", 3), ("known", 4)])
def test_a_submit_takes_few_statements(ground: Ground, thread: str | None, count: int) -> None:
    """Expected: one each for thread, run and event; whose turn it is, is asked only where the thread has had a run."""
    ground.submit("known")
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "runwright_" in statement:
            sent.append(statement)

    event.listen(ground.database.engine, "before_cursor_execute", note)
    ground.write(submitting.submit, [ground.new(thread, chosen=False)])
    assert len(sent) == count, sent


def test_thousands_at_once(ground: Ground) -> None:
    """Expected: one call takes more runs than a statement takes values, known keys included."""
    runs = [ground.new(f"t{n % 50}", idempotency_key=f"k{n}") for n in range(2500)]
    first, again = (ground.write(submitting.submit, runs) for _ in range(2))
    assert [run.id for run in first] == [run.id for run in runs] == [run.id for run in again]
    assert (sum(run.new for run in first), sum(run.new for run in again)) == (2500, 0)


@pytest.mark.parametrize("thread", [None, "t"])
def test_the_same_key_is_the_same_run(ground: Ground, thread: str | None) -> None:
    """Expected: the second submit gets the first's id and thread and makes nothing, a place in the line included."""
    first, second = (ground.write(submitting.submit, [ground.new(thread, idempotency_key="k")])[0] for _ in range(2))
    assert (second.id, second.thread_id, second.new) == (first.id, first.thread_id, False)
    third = ground.submit(first.thread_id)
    assert ground.row(third).seq == 2


def test_the_same_key_twice_in_one_call_is_one_run(ground: Ground) -> None:
    """Expected: both are answered with the same run."""
    first, second = ground.write(submitting.submit, [ground.new(idempotency_key="k") for _ in range(2)])
    assert first.id == second.id
    assert ground.row(first.id).seq == 1


@pytest.mark.parametrize("other", [{"words": "other"}, {"thread": "other"}])
def test_the_same_key_with_another_question_is_refused(ground: Ground, other: dict[str, str]) -> None:
    """Expected: KeyReused that names the key, across calls and within one, and nothing written."""
    ground.submit(idempotency_key="k")
    before = ground.everything()
    with pytest.raises(KeyReused, match="'k' belongs to a run with other input"):
        ground.submit(**other, idempotency_key="k")
    with pytest.raises(KeyReused, match="'new'"):
        ground.write(submitting.submit, [ground.new(idempotency_key="new"), ground.new(**other, idempotency_key="new")])
    assert ground.everything() == before


def test_runs_without_a_key_are_never_taken_for_each_other(ground: Ground) -> None:
    """Expected: the key "None" is a key like any other; a run without one beside it is a new run."""
    keyed = ground.submit(idempotency_key="None")
    again, new = ground.write(submitting.submit, [ground.new(idempotency_key="None"), ground.new(words="free")])
    assert (again.id, again.new) == (keyed, False)
    assert (new.id != keyed, new.new) == (True, True)


def test_a_redelivered_message_makes_no_second_run(ground: Ground) -> None:
    """Expected: the same id is the same run, as when Celery delivers a submit twice."""
    run = ground.new(thread=None)
    first, second = (ground.write(submitting.submit, [run])[0] for _ in range(2))
    assert (first.new, second.new) == (True, False)
    assert first.thread_id == second.thread_id


@pytest.mark.parametrize("thread", [None, "t"])
def test_two_producers_race_on_one_key(ground: Ground, thread: str | None) -> None:
    """Expected: of two submits that both saw no such key exactly one makes the run; the other gets it."""
    looked = threading.Barrier(2, timeout=20)

    def produce(run: NewRun) -> Accepted:
        if not ground.postgresql:
            looked.wait()  # SQLite lets one in at a time: they can only meet before the transaction
            return ground.write(submitting.submit, [run])[0]
        with ground.database.write() as connection:
            assert submitting._known(connection, [run]) == {}
            looked.wait()
            return submitting.submit(connection, [run])[0]

    runs = [ground.new(thread, idempotency_key="k") for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(produce, runs)
    assert one.id == two.id
    assert sorted([one.new, two.new]) == [False, True]
    with ground.database.read() as connection:
        assert connection.execute(select(func.count()).select_from(Run)).scalar_one() == 1


def test_the_loser_of_a_race_waits_for_the_winners_commit(postgres_url: str) -> None:
    """Expected: a key whose run is inserted but not committed is neither doubled nor an error once it is committed."""
    ground = Ground(postgres_url)
    first, second = ground.new(None, idempotency_key="k"), ground.new(None, idempotency_key="k")
    with ground.database.write() as connection:
        losing = ground.behind(
            connection, submitting.submit, [first], meanwhile=lambda c: submitting.submit(c, [second])
        )
    (accepted,) = losing.result(20)
    assert (accepted.id, accepted.new) == (first.id, False)
    ground.close()


def test_the_rows_join_the_callers_transaction(ground: Ground) -> None:
    """Expected: after a rollback of the caller neither run nor thread nor event is there; after a commit all are."""
    before = ground.everything()
    asked = [ground.new("t"), ground.new(None, idempotency_key="k")]
    with ground.database.engine.connect() as connection:
        with connection.begin() as transaction:
            submitting.submit(connection, asked)
            transaction.rollback()
        assert ground.everything() == before
        with connection.begin():
            accepted = submitting.submit(connection, asked)
    assert [run.new for run in accepted] == [True, True]
    assert ground.holder("t") == accepted[0].id


def test_a_refused_key_leaves_the_callers_transaction_usable(ground: Ground) -> None:
    """Expected: the caller may catch KeyReused and commit the rest of its work."""
    ground.submit(idempotency_key="k")
    with ground.database.write() as connection:
        with pytest.raises(KeyReused):
            submitting.submit(connection, [ground.new(words="other", idempotency_key="k")])
        (kept,) = submitting.submit(connection, [ground.new("other")])
    assert ground.holder("other") == kept.id


def test_a_later_run_is_due_when_it_is_available(ground: Ground) -> None:
    """Expected: the due time is `available_at` to the microsecond."""
    later = ground.now() + timedelta(hours=1, microseconds=7)
    row = ground.row(ground.submit(available_at=later))
    assert (row.due_at, row.available_at) == (later, later)


def refused(ground: Ground, *runs: NewRun) -> str:
    """Return the words in which these runs are refused; nothing may have been written."""
    before = ground.everything()
    with pytest.raises(ThreadBusy) as raised:
        ground.write(submitting.submit, runs)
    assert ground.everything() == before
    return str(raised.value)


def test_a_run_that_does_not_wait_is_refused_on_a_busy_thread(ground: Ground) -> None:
    """Expected: ThreadBusy that names the thread and the run with the turn until the thread is free; then it enters."""
    first = ground.submit(on_busy="reject")
    ground.submit()
    assert refused(ground, ground.new(on_busy="reject")) == f"thread 't' is busy: run {first} has not ended"
    ground.boot()
    ground.settle(ground.take())
    assert ground.holder("t") is not None
    assert "is busy" in refused(ground, ground.new(on_busy="reject"))
    ground.settle(ground.take())
    assert ground.holder("t") is None
    last = ground.submit(on_busy="reject")
    assert ground.holder("t") == last


def test_one_that_is_refused_keeps_all_of_its_call_out(ground: Ground) -> None:
    """Expected: two of one call on one thread are busy for each other; threads of their own never are."""
    first = ground.new("a")
    assert first.id in refused(ground, first, ground.new("b"), ground.new("a", on_busy="reject"))
    own = [ground.new(thread, on_busy="reject") for thread in (None, None, "a", "b")]
    assert [run.new for run in ground.write(submitting.submit, own)] == [True] * 4


def test_a_refusal_leaves_the_callers_transaction_usable(ground: Ground) -> None:
    """Expected: the caller may catch ThreadBusy and commit the rest of its work."""
    ground.submit()
    with ground.database.write() as connection:
        with pytest.raises(ThreadBusy):
            submitting.submit(connection, [ground.new(on_busy="reject")])
        (kept,) = submitting.submit(connection, [ground.new("other", on_busy="reject")])
    assert ground.holder("other") == kept.id


def test_a_known_key_is_answered_on_a_busy_thread_too(ground: Ground) -> None:
    """Expected: the run that the key had made, its own thread busy with itself."""
    first = ground.submit(idempotency_key="k", on_busy="reject")
    (again,) = ground.write(submitting.submit, [ground.new(idempotency_key="k", on_busy="reject")])
    assert (again.id, again.new) == (first, False)


def test_of_two_at_once_that_do_not_wait_one_enters(ground: Ground) -> None:
    """Expected: on both databases exactly one of eight producers at the same moment has the thread."""
    start = threading.Barrier(8)

    def produce(_: int) -> bool:
        start.wait()
        try:
            return bool(ground.submit("race", on_busy="reject"))
        except ThreadBusy:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(produce, range(8))) == 1


@pytest.mark.parametrize("key", ["k", None])
def test_the_second_of_two_looks_again_after_the_first_s_commit(postgres_url: str, key: str | None) -> None:
    """Expected: under the same key it gets the first's run; under none it is refused, and names it."""
    ground = Ground(postgres_url)
    ground.write(submitting.submit, [ground.new()])
    ground.boot()
    ground.settle(ground.take())
    first, second = (ground.new(idempotency_key=key, on_busy="reject") for _ in range(2))
    with ground.database.write() as connection:
        losing = ground.behind(
            connection, submitting.submit, [first], meanwhile=lambda c: submitting.submit(c, [second])
        )
    if key:
        assert [run.id for run in losing.result(20)] == [first.id]
    else:
        with pytest.raises(ThreadBusy, match=first.id):
            losing.result(20)
    ground.close()
