"""At 3 a.m.: what the commands show without a worker, and what a real worker answers on its HTTP port."""

import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from tasks import runs
from tasks.cli.main import app
from tests.conformance.ground import Ground
from tests.nursery import Nursery
from tests.servers import CeleryWorker, Stack
from worker.dbtime import from_now
from worker.lifecycle import Event, Status
from worker.models import Attempt
from worker.producer import producer
from worker.response import Asked, Usage
from worker.store import ledger, overview, pausing, progress, settling
from worker.store.settling import End


@pytest.fixture
def ground(sqlite_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    """Give a SQLite database that the commands of this process use."""
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    producer.cache_clear()
    ground = Ground(sqlite_url)
    yield ground
    ground.close()
    producer().database.close()
    producer.cache_clear()


def cli(*arguments: str, code: int = 0) -> str:
    """Run a command in this process and return what it prints."""
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_status_says_what_is_wrong_in_words(ground: Ground) -> None:
    """No worker, a queue that nobody serves, a pause with its reason; exit code 0 all the same."""
    assert "no worker is running" in cli("status")
    ground.submit("a")
    ground.submit("b", queue="bulk")
    assert cli("pause", "queue", "bulk", "--reason", "provider is down") == "queue bulk: paused\n"
    shown = cli("status")
    assert "queue default: 1 due runs, and no living worker serves it" in shown
    assert re.search(r"paused: queue bulk, since [\d: -]+ UTC: provider is down", shown)
    assert "no errors since" in shown
    told = json.loads(cli("status", "--json"))
    assert {one["queue"]: (one["due"], one["paused"]) for one in told["queues"]} == {"bulk": (0, 1), "default": (1, 0)}
    assert cli("resume", "queue", "bulk") == "queue bulk: resumed\n"
    assert json.loads(cli("status", "--json"))["pauses"] == []


def test_status_shows_workers_and_errors(ground: Ground) -> None:
    """What a worker holds, of how much; an error with the number of runs that it ended."""
    ground.boot()
    ground.submit("a")
    ground.submit("b")
    claim, _other = ground.claim()
    ground.settle(claim, End(Event.FAIL, error_code="server_error", error_message="no"))
    shown = cli("status")
    assert "1 / 10" in shown
    assert re.search(r"server_error +1 +0", shown)


def eventful(ground: Ground) -> str:
    """Make a run whose first attempt failed and whose second one called a tool and completed."""
    ground.boot()
    run_id = ground.submit()
    claim = ground.take()
    ground.commit(claim, progress.intend, 0, None)
    ground.commit(claim, progress.created, 0, "resp_1", "req_1")
    failure = End(Event.FAIL, error_code="server_error", error_message="the \x1b[31mprovider gave up")
    ground.commit(claim, settling.retry, 0.0, failure, 60.0)
    claim = ground.take()
    ground.commit(claim, progress.created, 0, "resp_2", "req_2")
    asked: dict[str, Any] = {
        "calls": [Asked("call_1", "calculate", "{}")],
        "effects": {},
        "usage": Usage(),
        "last_item": None,
    }
    ground.commit(claim, progress.need_tools, step=0, adopted=False, **asked)
    ground.commit(claim, ledger.start, ["call_1"])
    ground.commit(claim, ledger.finish, "call_1", status="completed", output="3", error=None)
    ground.commit(claim, progress.created, 1, "resp_3", "req_3")
    ground.settle(claim)
    with ground.database.write() as connection:
        connection.execute(update(Attempt).where(Attempt.number == 1).values(unknown=True, ended_at=from_now()))
    return run_id


def test_the_timeline_tells_a_run_in_words(ground: Ground) -> None:
    """Each line with seconds since the submit; provider and request ids, durations, errors of attempts."""
    run_id = eventful(ground)
    shown = cli("show", run_id, "--events")
    story = [
        r"\+0\.\d+ +submitted to queue default",
        r"\+\d+\.\d+ +attempt 1 is taken by worker w1",
        r" step 0 created at the provider: resp_1 \(request req_1\)",
        r" attempt failed: server_error: the \[31mprovider gave up \(unknown\); the next in 0\.0 s",
        r" attempt 2 is taken by worker w1",
        r" the model asks for calculate",
        r" tool calculate \(call_1\): completed in \d+\.\d+ s",
        r" step 1 created at the provider: resp_3 \(request req_3\)",
        r" completed",
    ]
    at = 0
    for line in story:
        found = re.compile(line).search(shown, at)
        assert found, f"{line!r} after {shown[at:]!r}"
        at = found.end()
    assert "\x1b[31m" not in shown


def test_show_says_when_a_parked_run_is_looked_at(ground: Ground) -> None:
    """Expected: while no worker holds it; nothing of it for a run that is held, or that has ended."""
    ground.boot()
    run_id = ground.submit()
    assert ("parked" in cli("show", run_id), json.loads(cli("show", run_id, "--json"))["next_look_at"]) == (False, None)
    claim = ground.take()
    ground.commit(claim, progress.intend, 0, None)
    ground.commit(claim, progress.created, 0, "resp_1", "req_1")
    assert "parked" not in cli("show", run_id)
    ground.commit(claim, settling.park_until_look, 240.0, 0.0, None)
    look_at = ground.row(run_id).due_at
    assert f"looked at again at {look_at:%Y-%m-%d %H:%M:%S} UTC" in " ".join(cli("show", run_id).split())
    assert json.loads(cli("show", run_id, "--json"))["next_look_at"] == look_at.isoformat()
    ground.make_due(run_id)
    ground.settle(ground.take())
    assert "parked" not in cli("show", run_id)


def test_show_says_nothing_of_the_provider_where_a_fault_is_waited_out(ground: Ground) -> None:
    """Expected: a run that was let go before anything was created, or after, with no look ahead, is not parked."""
    ground.boot()
    run_id = ground.submit()
    for created in (False, True):
        claim = ground.take()
        if created:
            ground.commit(claim, progress.intend, 0, None)
            ground.commit(claim, progress.created, 0, "resp_1", "req_1")
        ground.commit(claim, settling.crashed, 240.0, 9)
        assert "parked" not in cli("show", run_id)
        assert json.loads(cli("show", run_id, "--json"))["next_look_at"] is None
        ground.make_due(run_id)


def test_the_timeline_for_programs_is_raw(ground: Ground) -> None:
    """The events and the rows of the attempts, beside what `show` gives anyway."""
    told = json.loads(cli("show", eventful(ground), "--events", "--json"))
    assert told["events"][2]["data"] == {"step": 0, "provider_id": "resp_1", "request_id": "req_1"}
    assert [row["unknown"] for row in told["attempt_rows"]] == [True, False]
    assert (told["attempts"], told["tool_calls"][0]["seconds"] >= 0) == (2, True)
    assert "events" not in json.loads(cli("show", told["id"], "--json"))


def fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def booted(worker: CeleryWorker) -> dict[str, Any]:
    lines = [json.loads(line) for line in worker.log().splitlines() if line.startswith("{")]
    return next(line for line in lines if line["event"] == "worker_started")


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_a_worker_answers_on_its_port(stack: Stack) -> None:
    """Live, ready, and counts of the run that it carried; a pause holds the next one until it is resumed."""
    stack.assistant("clerk")
    with stack.worker() as worker:
        url = booted(worker)["http"]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        assert runs.submit(assistant="clerk", input="[[say yes]]").wait(20).output_text == "yes"
        status, body = fetch(f"{url}/healthz")
        assert (status, json.loads(body)["unwell"]) == (200, []), body
        assert fetch(f"{url}/livez")[0] == 200
        scraped = fetch(f"{url}/metrics")[1]
        assert 'runwright_run_ends_total{assistant="clerk",status="completed"} 1.0\n' in scraped
        assert "runwright_in_flight 0.0\n" in scraped
        assert 'runwright_due_runs{queue="default"}' in scraped
        assert 'runwright_tokens_total{assistant="clerk",direction="output"}' in scraped

        with producer().database.write() as connection:
            pausing.pause(connection, pausing.Kind.ASSISTANT, "clerk")
        held_back = runs.submit(assistant="clerk", input="[[say later]]")
        free = stack.assistant("other")
        assert runs.submit(assistant=free, input="[[say now]]").wait(20).output_text == "now"
        assert (held_back.status(), held_back.result().attempts) == (Status.QUEUED, 0)
        with producer().database.write() as connection:
            pausing.resume(connection, pausing.Kind.ASSISTANT, "clerk")
        assert held_back.wait(20).output_text == "later"
        with producer().database.read() as connection:
            (view,) = overview.overview(connection).workers
        assert (view.http, view.node) == (url, worker.node)


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_a_port_in_use_ends_the_start_with_one_line(stack: Stack, nursery: Nursery) -> None:
    """Exit code 2 and the variable's name."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        env = {**stack.env, "RUNWRIGHT_HTTP": address, "PYTHONWARNINGS": "ignore"}
        ended = nursery.run("celery", "-A", "worker.app", "worker", env=env)
    assert ended.returncode == 2
    assert ended.stderr.strip().startswith(f"runwright: RUNWRIGHT_HTTP={address}: Address already in use")
