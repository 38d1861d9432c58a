"""Cleaning by age: only what has ended long ago and what we created, and never under a run that needs it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from tests.conformance.ground import PLACE, Ground
from worker.backends.places import PROTOCOLS, Place
from worker.care import maintenance
from worker.care.errands import Errand, Outcome, Target
from worker.care.maintenance import Cleaned
from worker.dbtime import from_now
from worker.models import Conversation, EventRow, Item, Run, Thread, ToolCall
from worker.settings import Settings
from worker.store import asking, cleaning, submitting

DAY = 86_400.0
OLD, YOUNG = -100 * DAY, -10 * DAY
CALL = {"call_id": "c1", "step": 0, "position": 0, "attempt": 1, "name": "add", "arguments": "{}", "status": "asked"}


class Provider:
    """Deletes what it is asked to, or says what is wrong."""

    def __init__(self, *errors: str) -> None:
        self.errors = list(errors)
        self.deleted: list[str] = []

    def send(self, errand: Errand, targets: Sequence[Target]) -> Iterator[Outcome]:
        assert errand is Errand.DELETE
        for one in targets:
            error = self.errors.pop(0) if self.errors else None
            if error is None:
                self.deleted.append(one.id)
            yield Outcome(one, error=error)


def ended(ground: Ground, thread: str, at: float = OLD, place: str = PLACE) -> str:
    """Return a run that ended then, in a conversation that has the thread's name."""
    run = ground.submit(thread)
    ground.settle(ground.take())
    of_thread = {"thread_id": thread, "place": place, "created_at": from_now(OLD)}
    with ground.database.write() as connection:
        connection.execute(update(Run).where(Run.id == run).values(finished_at=from_now(at)))
        connection.execute(update(EventRow).where(EventRow.run_id == run).values(at=from_now(at)))
        connection.execute(insert(Conversation).values(id=f"conv_{thread}", **of_thread))
        connection.execute(update(Thread).where(Thread.id == thread).values(provider_id=f"conv_{thread}"))
        connection.execute(insert(ToolCall).values(run_id=run, **CALL))
        connection.execute(insert(Item).values(conversation_id=f"conv_{thread}", item={}))
    return run


@pytest.fixture
def booted(ground: Ground) -> Ground:
    ground.boot()
    return ground


def clean(ground: Ground, provider: Provider, most: float = 100) -> Cleaned:
    cleaned, settings = Cleaned(), Settings.from_env({"OPENAI_API_KEY": "sk-o"})
    maintenance.delete_conversations(ground.database, settings, provider.send, cleaned, most=most)
    return cleaned


def thread_of(ground: Ground, thread: str) -> Any:
    with ground.database.read() as connection:
        return connection.execute(select(Thread).where(Thread.id == thread)).one()


def closed(ground: Ground, run: str) -> bool:
    with ground.database.read() as connection:
        return bool(connection.execute(select(ToolCall.closed).where(ToolCall.run_id == run)).scalar_one())


def test_a_conversation_goes_when_its_thread_has_rested(booted: Ground) -> None:
    """Expected: deleted once; the thread goes on in a fresh one, in which its open calls are unknown."""
    old, young, reopened = ended(booted, "old"), ended(booted, "young", YOUNG), ended(booted, "open")
    with booted.database.write() as connection:
        connection.execute(update(Run).where(Run.id == reopened).values(status="failed"))
        asking.reopen(connection, reopened)
    provider = Provider()
    assert clean(booted, provider) == Cleaned(0, 1)
    assert clean(booted, provider) == Cleaned()
    assert provider.deleted == ["conv_old"]
    assert (thread_of(booted, "old").provider_id, closed(booted, old)) == (None, True)
    assert (thread_of(booted, "young").provider_id, closed(booted, young)) == ("conv_young", False)
    assert thread_of(booted, "open").provider_id == "conv_open"


def test_a_conversation_that_was_left_goes_from_a_busy_thread(booted: Ground) -> None:
    """Expected: deleted although the thread goes on, whose own conversation and open calls stay."""
    run = ended(booted, "t", YOUNG)
    booted.submit("t")
    with booted.database.write() as connection:
        for name, left in (("conv_left", OLD), ("conv_just_left", YOUNG)):
            row = {"id": name, "thread_id": "t", "created_at": from_now(OLD), "left_at": from_now(left)}
            connection.execute(insert(Conversation).values(**row))
    provider = Provider()
    assert clean(booted, provider).conversations == 1
    assert provider.deleted == ["conv_left"]
    assert (thread_of(booted, "t").provider_id, closed(booted, run)) == ("conv_t", False)


def test_what_the_provider_refuses_is_tried_again(booted: Ground) -> None:
    """Expected: counted by its code; the thread has let go of it, and the next cleanup deletes it."""
    ended(booted, "a"), ended(booted, "b")
    provider = Provider("server_error: HTTP 500: oh")
    assert clean(booted, provider) == Cleaned(0, 1, Counter({"server_error": 1}))
    assert thread_of(booted, "a").provider_id is None
    assert clean(booted, provider).conversations == 1
    assert sorted(provider.deleted) == ["conv_a", "conv_b"]


def test_a_cleanup_is_bounded(booted: Ground) -> None:
    """Expected: no more than asked for in one go; where nothing can be deleted it ends at once."""
    for number in range(3):
        ended(booted, f"t{number}")
    assert clean(booted, Provider(*["connection_error: away"] * 3)).failed == {"connection_error": 3}
    assert [clean(booted, Provider(), most=2).conversations for _ in range(3)] == [2, 1, 0]


@pytest.mark.parametrize(
    ("environment", "gone"),
    [
        ({}, {"chat", "keyless", "responses-stateless"}),
        ({"RUNWRIGHT_KEY_A": "sk-a"}, {"chat", "keyless", "responses-stateless", "assistants", "responses"}),
        ({"OPENAI_API_KEY": "sk-o"}, {"chat", "keyless", "openai", "responses-stateless"}),
    ],
)
def test_what_no_key_is_there_for_stays(booted: Ground, environment: dict[str, str], gone: set[str]) -> None:
    """Expected: conversations at another server keep none from going, those in our own database among them."""
    for protocol in PROTOCOLS:
        ended(booted, protocol, place=str(Place(protocol, "http://localhost/v1", "RUNWRIGHT_KEY_A")))
    ended(booted, "openai")
    ended(booted, "keyless", place=str(Place("assistants", "http://localhost/v1")))
    ended(booted, "a newer version", place="telepathy - -")
    settings, provider = Settings.from_env(environment), Provider()
    assert maintenance.count_conversations(booted.database, settings) == len(gone)
    assert maintenance.clean(booted.database, settings, provider.send).conversations == len(gone)
    with booted.database.read() as connection:
        left = set(connection.execute(select(Item.conversation_id)).scalars())
    known = {*PROTOCOLS, "openai", "keyless", "a newer version"}
    assert left == {f"conv_{one}" for one in known - gone}
    assert set(provider.deleted) == {f"conv_{one}" for one in gone - {"chat", "responses-stateless"}}
    assert thread_of(booted, "a newer version").provider_id == "conv_a newer version"


def test_a_server_that_is_away_keeps_no_other_from_being_cleaned(
    booted: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expected: what lies at others goes, whichever is asked first; what lies there is tried the next time."""
    away = str(Place("assistants", "http://localhost/v1"))
    for name, place in (("a", away), ("b", PLACE), ("c", away)):
        ended(booted, name, place=place)

    def send(_errand: Errand, targets: Sequence[Target]) -> Iterator[Outcome]:
        for one in targets:
            yield Outcome(one, error="connection_error: away" if one.place == away else None)

    monkeypatch.setattr(maintenance, "_FIRST", 1)
    cleaned = Cleaned()
    maintenance.delete_conversations(booted.database, Settings.from_env({"OPENAI_API_KEY": "k"}), send, cleaned)
    assert cleaned == Cleaned(0, 1, Counter({"connection_error": 1}))


def test_a_new_run_keeps_the_conversation(booted: Ground) -> None:
    """Expected: a submit that comes first keeps it; one that comes later finds the thread without it."""
    ended(booted, "t")
    booted.submit("t")
    assert not booted.write(cleaning.release, "conv_t", 90)
    assert booted.take().conversation == "conv_t"


def test_a_submit_that_waits_for_the_lock_gets_a_fresh_one(ground: Ground) -> None:
    """Expected: under PostgreSQL a submit during the release waits, and its run sees no conversation."""
    if not ground.postgresql:
        pytest.skip("SQLite has one writer at a time")
    ground.boot()
    ended(ground, "t")
    with ground.database.write() as connection:
        new = ground.behind(connection, cleaning.release, "conv_t", 90, meanwhile=lambda _c: ground.submit("t"))
    new.result(10)
    assert ground.take().conversation is None


def test_a_release_that_waits_for_a_submit_sees_its_run(ground: Ground) -> None:
    """Expected: the other way round the conversation stays."""
    if not ground.postgresql:
        pytest.skip("SQLite has one writer at a time")
    ground.boot()
    ended(ground, "t")
    released: list[bool] = []
    with ground.database.write() as connection:
        done = ground.behind(
            connection,
            lambda c: submitting.submit(c, [ground.new("t")]),
            meanwhile=lambda c: released.append(cleaning.release(c, "conv_t", 90)),
        )
    done.result(10)
    assert released == [False]


def test_events_go_with_their_age(booted: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: those of runs that ended long ago, over several pages; a run under way keeps its old ones."""
    monkeypatch.setattr(cleaning, "_EVENTS", 4)
    for number in range(4):
        ended(booted, f"old{number}")
    young, live = ended(booted, "young", YOUNG), booted.submit("live")
    with booted.database.write() as connection:
        connection.execute(update(EventRow).where(EventRow.run_id == live).values(at=from_now(OLD)))
    assert maintenance.prune_events(booted.database, 30, dry_run=True) == 12
    assert maintenance.prune_events(booted.database, 30) == 12
    assert maintenance.prune_events(booted.database, 30) == 0
    with booted.database.read() as connection:
        left = connection.execute(select(EventRow.run_id, func.count()).group_by(EventRow.run_id))
        assert dict(left.all()) == {young: 3, live: 1}
