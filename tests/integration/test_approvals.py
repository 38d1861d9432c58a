"""People and the command line: what waits is shown whole, decided once, and the queue is rung; no worker runs here."""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from sqlalchemy import select

from tasks import approvals, runs
from tasks.cli import run_commands
from tasks.cli.main import main
from tests.conformance.ground import Ground
from worker import urls
from worker.errors import UsageError
from worker.lifecycle import Event
from worker.models import ToolCall
from worker.producer import producer
from worker.response import Asked, Usage
from worker.store import deciding, ledger, progress, settling
from worker.store.deciding import Kind
from worker.store.settling import End

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ground(sqlite_url: str) -> Iterator[Ground]:
    ground = Ground(sqlite_url)
    ground.boot(queues=("q",))
    yield ground
    ground.close()


@pytest.fixture(autouse=True)
def at_home(sqlite_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process's producer be one of the test's database and Redis."""
    producer.cache_clear()
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("LOGNAME", "login")
    yield
    producer.cache_clear()


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command and returns its exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["runwright", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0), *capfd.readouterr()

    return run


def parked(ground: Ground, *call_ids: str, question: Kind = "approval", arguments: str = "{}") -> str:
    """Return a run that waits for people, and that nobody holds."""
    run_id = ground.submit(None, queue="q")
    (claim,) = ground.claim(queues=("q",))
    calls = [Asked(call_id, "pay", arguments) for call_id in call_ids]
    ground.commit(claim, progress.need_tools, effects={}, step=0, calls=calls, usage=Usage(), last_item=None)
    if question == "in_doubt":
        ground.commit(claim, ledger.start, call_ids)
    ground.commit(claim, deciding.ask, call_ids, question, 600.0)
    ground.commit(claim, settling.park_until_answer, 60.0)
    return run_id


def rung(redis_url: str) -> bool:
    """Tell whether the queue was rung, and let the next ring through."""
    with redis.Redis.from_url(urls.redis_client_url(redis_url)) as client:
        return bool(client.delete("runwright:ring:q"))


def call(ground: Ground, call_id: str) -> Any:
    with ground.database.read() as connection:
        return connection.execute(select(ToolCall).where(ToolCall.call_id == call_id)).one()


def test_what_waits_is_shown_whole_and_harmless(ground: Ground, cli: Run) -> None:
    """Expected: long arguments uncut and without control characters; JSON has the text as the model wrote it."""
    arguments = json.dumps({"to": "x" * 500}) + "\x1b[31m\u202e"
    run_id = parked(ground, "c1", arguments=arguments)
    code, out, err = cli("approvals", "list")
    assert code == 0
    assert "x" * 500 in "".join(part.strip() for part in out.splitlines())
    for word in (run_id, "c1", "pay", "helper", "decide by"):
        assert word in out
    assert not {"\x1b", "\u202e"} & set(out)
    assert "runwright approvals approve RUN" in err
    (one,) = json.loads(cli("approvals", "list", "--json")[1])
    assert (one["run_id"], one["call_id"], one["arguments"], one["question"]) == (run_id, "c1", arguments, "approval")
    assert cli("tools", "in-doubt")[1:] == ("", "no calls in doubt\n")


def test_who_waits_for_the_run_is_told_of_the_question(
    ground: Ground, cli: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Expected: `show` names the command that lists the question; `submit --wait` does while it waits, once."""
    run_id = parked(ground, "c1")
    assert "waits for a person: `runwright approvals list`\n" in cli("show", run_id)[1]
    monkeypatch.setattr("tasks.cli.run_commands._LOOK", 0.1)
    view = run_commands._waited(runs.RunHandle(run_id, "t"), 0.5)
    assert (view.id, view.status) == (run_id, "requires_action")
    assert capfd.readouterr().err == "waits for a person: `runwright approvals list`\n"


def test_a_person_approves_and_denies(ground: Ground, cli: Run, redis_url: str) -> None:
    """Expected: who and why stand with the call; the queue is rung when nothing waits any more; twice is refused."""
    run_id = parked(ground, "c1", "c2")
    code, out, _ = cli("approvals", "approve", run_id, "c1", "--json")
    told = {"run_id": run_id, "call_id": "c1", "tool": "pay", "decision": "approved", "by": "login"}
    assert (code, json.loads(out), rung(redis_url)) == (0, told, False)
    code, out, _ = cli("approvals", "deny", run_id, "--reason", "too dear", "--by", "ann")
    assert (code, out) == (0, f"run {run_id}: call c2 (pay) denied by ann\n")
    assert rung(redis_url)
    assert (call(ground, "c2").decided_by, call(ground, "c2").reason) == ("ann", "too dear")
    assert "too dear" in call(ground, "c2").output
    code, out, err = cli("approvals", "approve", run_id, "c2")
    assert (code, out) == (2, "")
    assert err.startswith(f"runwright: call c2 (pay) of run {run_id} was denied by ann at 20")
    assert cli("approvals", "list", "--json")[1] == "[]\n"


def test_a_person_answers_for_a_call_in_doubt(ground: Ground, cli: Run, redis_url: str) -> None:
    """Expected: listed with the time when it began; the answer is its end, and the queue is rung."""
    run_id = parked(ground, "c1", question="in_doubt")
    (one,) = json.loads(cli("tools", "in-doubt", "--json")[1])
    assert (one["call_id"], one["began_at"] is not None) == ("c1", True)
    code, out, err = cli("tools", "answer", run_id)
    assert (code, out, "one of them" in err) == (2, "", True)
    assert cli("tools", "answer", run_id, "--output", "paid 5")[0] == 0
    assert (call(ground, "c1").status, call(ground, "c1").output, rung(redis_url)) == ("completed", "paid 5", True)


def test_a_user_without_a_name_can_decide(ground: Ground, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: the user's number stands for the name that the system does not know."""

    def nobody() -> str:
        raise KeyError("no such user")

    monkeypatch.setattr("getpass.getuser", nobody)
    run_id = parked(ground, "c1")
    assert cli("approvals", "approve", run_id)[0] == 0
    assert call(ground, "c1").decided_by.startswith("user ")


def test_the_python_door(ground: Ground, redis_url: str) -> None:
    """Expected: the same from a producer's own code, a web page for example."""
    run_id = parked(ground, "c1")
    (one,) = approvals.pending("approval")
    assert approvals.approve(one.run_id, one.call_id, by="ann").queue == "q"
    assert rung(redis_url)
    with pytest.raises(UsageError, match="was approved by ann"):
        approvals.deny(run_id, by="bob")


def test_cancelling_a_parked_run_rings(ground: Ground, redis_url: str) -> None:
    """Expected: a worker is told at once, not when the question expires."""
    run_id = parked(ground, "c1")
    assert runs.cancel(run_id) == "requires_action"
    assert rung(redis_url)
    assert [claim.cancelling for claim in ground.claim(queues=("q",))] == [True]


def test_starting_over_is_asked_for(ground: Ground, cli: Run) -> None:
    """Expected: a run whose `once` call began and was answered is reopened only with start_over."""
    run_id = parked(ground, "c1", question="in_doubt")
    approvals.answer(run_id, by="ann", output="paid 5")
    (claim,) = ground.claim(queues=("q",))
    ground.settle(claim, End(Event.FAIL, error_code="e", error_message="m", answered=True))
    with pytest.raises(UsageError, match="could call pay a second time"):
        runs.retry(run_id)
    code, out, err = cli("retry", "--status", "failed", "--start-over")
    assert (code, out, "run by run" in err) == (2, "", True)
    assert json.loads(cli("retry", run_id, "--start-over", "--json")[1]) == [{"id": run_id, "status": "queued"}]
