"""Doctor, cleanup, and retry and cancel of many, as a person at 3 a.m. would use them."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import insert, select, update

from tasks import celery_tasks
from tasks.cli.main import main
from tests.integration.test_cli import Ended
from tests.servers import Simulator
from worker.dbtime import from_now
from worker.lifecycle import Event
from worker.models import Attempt, Conversation, EventRow, Run, Thread
from worker.producer import Producer, producer
from worker.store import assistants, claiming, held, leases, settling
from worker.store.settling import End

Cli = Callable[..., Ended]


@pytest.fixture
def door(sqlite_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Producer]:
    """Return a producer with an assistant and a worker that is there."""
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.chdir(tmp_path)
    producer.cache_clear()
    with producer().database.write() as connection:
        assistants.apply(connection, "clerk", {"model": "m"})
        leases.register(connection, "w", node="n", pid=1, queues=["default"], room=10, lease=600)
    yield producer()
    producer().database.close()
    producer.cache_clear()


@pytest.fixture
def cli(door: Producer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Return what runs a command in this process."""

    def run(*arguments: str) -> Ended:
        capfd.readouterr()  # what the test itself has logged
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["runwright", *arguments])
            with pytest.raises(SystemExit) as caught:
                main()
        return Ended(int(caught.value.code or 0), *capfd.readouterr())

    assert door
    return run


def submitted(cli: Cli, thread: str, count: int = 1) -> list[str]:
    ask = ("submit", "--assistant", "clerk", "--thread", thread, "x", "--json")
    return [cli(*ask).json()["id"] for _ in range(count)]


def end(door: Producer, code: str) -> None:
    """Let everything that is due fail with this code."""
    with door.database.write() as connection:
        for claim in claiming.claim(connection, "w", ["default"], 100):
            held.commit(connection, claim, settling.settle, End(Event.FAIL, error_code=code, error_message="m"))


def test_retry_and_cancel_of_many(cli: Cli, door: Producer) -> None:
    """A dry run lists and changes nothing; then exactly these are changed, in the order of their line."""
    first, second = submitted(cli, "t", 2)
    (other,) = submitted(cli, "u")
    end(door, "outage")
    end(door, "wrong")
    dry = cli("retry", "--error", "outage", "--dry-run", "--json").json()
    assert (dry["matched"], {one["id"] for one in dry["runs"]}) == (2, {first, other})
    assert "2 runs to retry; nothing was changed" in cli("retry", "--error", "outage", "--dry-run").out
    assert cli("list", "--status", "queued", "--json").json() == []
    assert cli("retry", "--assistant", "clerk", "--since", "1h", "--json").json() == {
        "matched": 3,
        "changed": 3,
        "refused": {},
    }
    with door.database.write() as connection:
        due = {claim.run_id for claim in claiming.claim(connection, "w", ["default"], 100)}
    assert due == {first, other}
    ended = cli("cancel", "--status", "queued", "--queue", "default")
    assert (ended.out, "1 runs to cancel" in ended.err) == ("1 runs asked to cancel\n", True)
    assert [one["id"] for one in cli("list", "--status", "cancelled", "--json").json()] == [second]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("retry",), "give either the ids of runs or what to choose them by"),
        (("cancel", "r", "--queue", "q"), "give either the ids of runs or what to choose them by"),
        (("retry", "r", "--dry-run"), "--dry-run says which runs a choice holds"),
        (
            ("retry", "--status", "completed"),
            "status completed: cannot retry such a run; only cancelled, expired, failed",
        ),
        (("cancel", "--status", "failed"), "status failed: cannot cancel such a run; only cancelling, in_progress"),
        (("retry", "--since", "soon"), "--since 'soon': write it as a number and s, m, h or d"),
        (("retry", "--batch", "nope"), "no batch 'nope'"),
        (("pause", "thing", "x"), "Invalid value for 'queue|assistant|batch': 'thing' is not one of 'queue', "),
        (("cancel", "--assistant", "nope"), "no assistant 'nope' (there is: clerk)"),
    ],
)
def test_a_wrong_choice_is_one_line(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    """Nothing on stdout, exit code 2, and what to write instead."""
    ended = cli(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err


def test_a_doctor_s_visit(cli: Cli, door: Producer) -> None:
    """Exit code 0 for a sound house, 1 with what is wrong, 0 once it is mended; without a key that is told."""
    (run,) = submitted(cli, "t")
    sound = cli("doctor", "--json")
    assert (sound.code, sound.json()["ok"]) == (0, True)
    assert "OPENAI_API_KEY: not set" in sound.json()["checks"][-1]["skipped"]
    with door.database.write() as connection:
        connection.execute(update(Run).values(due_at=None))
    ill = cli("doctor", "--no-provider")
    assert ill.code == 1
    assert (
        f"WRONG  due times; expected: every run with the turn and without an owner has a due time\n       {run}"
        in ill.out
    )
    assert "ok     turns: no thread has more than one turn" in ill.out
    assert "--fix makes the run due now" in ill.out
    mended = cli("doctor", "--fix", "--no-provider")
    assert (mended.code, "fixed  due times" in mended.out) == (0, True)
    cli("submit", "--assistant", "clerk", "--queue", "nobody", "x")
    warned = cli("doctor", "--no-provider")
    assert warned.code == 0
    expected = (
        "queues; expected: every queue with due runs is served by a living worker\n       nobody\n       → start a"
    )
    assert f"warn   {expected}" in warned.out


def test_without_a_key_what_the_provider_keeps_stays(cli: Cli, door: Producer) -> None:
    """A worker's scheduled cleanup and the command leave its conversations to one that has the key, and say so."""
    for thread, place in (("there", "responses - OPENAI_API_KEY"), ("here", "chat - -"), ("too", "chat - -")):
        submitted(cli, thread)
        end(door, "server_error")
        opened(door, thread, f"conv_{thread}", place)
    rested(door, "here")
    celery_tasks.clean()
    rested(door, "there")
    rested(door, "too")
    assert cli("cleanup", "--dry-run", "--json").json() == {"events": 6, "conversations": 1, "failed": {}}
    ended = cli("cleanup")
    assert ended.out == "deleted 6 events and 1 conversations\n"
    assert "OPENAI_API_KEY: not set, so conversations that need it stay" in ended.err


@pytest.fixture
def provider(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx2.Client]:
    """Return a client of the simulator, to which the environment leads."""
    monkeypatch.setenv("OPENAI_BASE_URL", simulator.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none-of-anybody")
    producer.cache_clear()
    with httpx2.Client(base_url=simulator.url, headers={"authorization": "Bearer sk-none-of-anybody"}) as client:
        yield client


LONG_AGO = from_now(-100 * 86_400)


def opened(door: Producer, thread: str, conversation: str, place: str = "responses - OPENAI_API_KEY") -> None:
    """Give the thread a conversation that was begun long ago."""
    with door.database.write() as connection:
        row = {"id": conversation, "thread_id": thread, "place": place, "created_at": LONG_AGO}
        connection.execute(insert(Conversation).values(**row))
        connection.execute(update(Thread).where(Thread.id == thread).values(provider_id=conversation))


def rested(door: Producer, thread: str) -> None:
    """Let the thread's runs have ended long ago."""
    with door.database.write() as connection:
        connection.execute(update(Run).where(Run.thread_id == thread).values(finished_at=LONG_AGO))
        of_thread = EventRow.run_id.in_(select(Run.id).where(Run.thread_id == thread))
        connection.execute(update(EventRow).where(of_thread).values(at=LONG_AGO))


def created(door: Producer, run: str, *responses: str) -> None:
    """Let the run have asked for these responses in the conversation of its thread."""
    with door.database.write() as connection:
        known = {"provider_ids": list(responses), "intent_at": from_now()}
        connection.execute(update(Attempt).where(Attempt.run_id == run).values(known))


def test_care_reaches_the_provider(cli: Cli, door: Producer, provider: httpx2.Client) -> None:
    """Old conversations are gone there, known to it or not, the others are not; a response left alive is cancelled."""
    ids = [provider.post("/conversations", json={}).json()["id"] for _ in range(3)]
    runs = [submitted(cli, thread)[0] for thread in ("old", "gone", "new")]
    end(door, "server_error")
    for thread, conversation in (("old", ids[0]), ("gone", "conv_nobody_knows"), ("new", ids[1])):
        opened(door, thread, conversation)
    rested(door, "old")
    rested(door, "gone")
    assert cli("cleanup", "--dry-run", "--json").json() == {"events": 6, "conversations": 2, "failed": {}}
    assert cli("cleanup").out == "deleted 6 events and 2 conversations\n"
    assert [provider.get(f"/conversations/{one}").status_code for one in ids] == [404, 200, 200]
    rested(door, "new")
    celery_tasks.clean()
    assert [provider.get(f"/conversations/{one}").status_code for one in ids] == [404, 404, 200]
    body = {"model": "gpt-4o-mini", "input": "[[latency 600]]", "background": True, "store": True}
    alive = provider.post("/responses", json=body).json()["id"]
    with door.database.write() as connection:
        connection.execute(update(Run).where(Run.id == runs[0]).values(finished_at=from_now()))
    created(door, runs[0], "resp_x", alive)
    told = cli("doctor", "--json")
    found: dict[str, Any] = told.json()["checks"][-1]
    assert (told.code, found["findings"]) == (1, [{"subject": runs[0], "told": alive}])
    assert cli("doctor", "--fix").code == 0
    assert provider.get(f"/responses/{alive}").json()["status"] == "cancelled"


def test_a_provider_that_is_away(cli: Cli, door: Producer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor says that it could not ask; a cleanup leaves the conversation for the next time."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none-of-anybody")
    producer.cache_clear()
    (run,) = submitted(cli, "t")
    end(door, "server_error")
    opened(door, "t", "conv_1")
    created(door, run, "resp_1")
    told = cli("doctor", "--json")
    assert (told.code, "could not be asked: connection_error" in told.json()["checks"][-1]["skipped"]) == (0, True)
    rested(door, "t")
    ended = cli("cleanup")
    assert (ended.code, "deleted 3 events and 0 conv" in ended.out) == (0, True)
    assert "1 conversations are left for the next time: connection_error" in ended.err
