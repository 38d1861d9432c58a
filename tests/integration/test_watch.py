"""Runs watched from another process: in order, live, from any event on, and to their end without Redis."""

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from tasks import runs
from tests.nursery import Nursery
from tests.servers import CeleryWorker, Stack
from worker import urls
from worker.lifecycle import Status
from worker.store import reading
from worker.watching.telling import RunEvent

pytestmark = pytest.mark.parametrize("stack", ["postgresql"], indirect=True, scope="module")

ANSWER = "The sum of one and two is three, as everyone would have guessed."
Runwright = Callable[..., subprocess.CompletedProcess[str]]
ASKED = f'[[latency 0.6]][[call calculate {{"expression": "1 + 2"}}]][[then]][[say {ANSWER}]]'


@pytest.fixture(scope="module")
def follower(stack: Stack) -> Iterator[CeleryWorker]:
    """Run a worker for two assistants, of which one is streamed."""
    stack.assistant("clerk", tools=["calculate"], stream=True)
    stack.assistant("silent", tools=["calculate"])
    with stack.worker("--without-mingle", "--without-gossip") as worker:
        yield worker


def kinds(events: list[RunEvent]) -> list[str]:
    """Return what was told, status by its word, pieces of one text as one."""
    told = [event.status.value if event.kind == "status" else event.kind for event in events]
    return [kind for at, kind in enumerate(told) if kind != "text" or told[at - 1] != "text"]


def said(events: list[RunEvent]) -> str:
    """Join the text of the last step as the reference says."""
    text = ""
    for event in events:
        if event.text is not None:
            text = event.text if event.offset == 0 else text + event.text
    return text


WHOLE = ["queued", "in_progress", "calls", "output", "in_progress", "text", "end"]


def test_a_run_is_told_in_order_and_as_it_goes_on(stack: Stack, follower: CeleryWorker) -> None:
    """Expected: statuses, the call, its outcome and the text in their order; text before the end, which adds none."""
    events = list(runs.submit(assistant="clerk", input=ASKED).events(timeout=30))
    assert kinds(events) == WHOLE
    assert [call["name"] for event in events for call in event.calls] == ["calculate", "calculate"]
    assert json.loads(events[2].calls[0]["arguments"]) == {"expression": "1 + 2"}
    assert events[3].calls[0]["output"] == "3"
    assert (said(events), events[-1].output_text, events[-1].text) == (ANSWER, ANSWER, None)
    assert len([event for event in events if event.kind == "text"]) > 2
    assert not any(event.restart for event in events)


def test_chat_is_heard_without_a_setting(stack: Stack, follower: CeleryWorker) -> None:
    """Expected: a step that lives on its connection is told in pieces, unless its assistant says otherwise."""
    chatty, mute = stack.assistant("chatty", backend="chat"), stack.assistant("mute", backend="chat", stream=False)
    said_by = [
        list(runs.submit(assistant=name, input=f"[[say {ANSWER}]]").events(timeout=30)) for name in (chatty, mute)
    ]
    assert [kinds(events) for events in said_by] == [[*WHOLE[:2], "text", "end"], [*WHOLE[:2], "end"]]
    assert [said(events) for events in said_by] == [ANSWER, ANSWER]


def test_an_end_between_two_looks_is_told_once(stack: Stack, follower: CeleryWorker, monkeypatch: Any) -> None:
    """Expected: the end alone, also where the run was under way when its status was read, and ended then."""
    handle = runs.submit(assistant="mute", input=f"[[say {ANSWER}]]")
    handle.wait(30)
    statuses = iter([Status.IN_PROGRESS])
    real = reading.status
    monkeypatch.setattr(reading, "status", lambda *args: next(statuses, None) or real(*args))
    assert kinds(list(handle.events(timeout=30))) == [*WHOLE[:2], "end"]


def test_a_watcher_goes_on_from_any_event(stack: Stack, follower: CeleryWorker) -> None:
    """Expected: whoever comes late hears the same, and from each event on exactly what came behind it."""
    handle = runs.submit(assistant="clerk", input=ASKED)
    live = list(handle.events(timeout=30))
    assert list(handle.events(timeout=30)) == live
    for at, event in enumerate(live):
        assert list(handle.events(event.id, timeout=30)) == live[at + 1 :]


def test_without_redis_the_journal_tells_all_but_the_pieces(stack: Stack, follower: CeleryWorker) -> None:
    """Expected: with the stream gone the same statuses and calls, the whole answer with the end, nothing twice."""
    handle = runs.submit(assistant="clerk", input=ASKED)
    live = list(handle.events(timeout=30))
    with redis.Redis.from_url(urls.redis_client_url(os.environ["REDIS_URL"])) as client:
        assert client.delete(f"runwright:live:{handle.id}") == 1
    assert kinds(list(handle.events(timeout=30))) == [*WHOLE[:5], "end"]
    assert said(list(handle.events(timeout=30))) == ANSWER
    (again,) = handle.events(live[-3].id, timeout=30)
    assert (again.kind, again.text, again.offset, again.restart) == ("end", ANSWER, 0, True)
    assert list(handle.events(live[-1].id, timeout=30)) == []


def test_only_what_is_streamed_is_in_redis_and_not_for_long(stack: Stack, follower: CeleryWorker) -> None:
    """Expected: nothing there of a run that is polled, whose watcher gets the answer with its end; a stream expires."""
    silent, streamed = (runs.submit(assistant=name, input=ASKED) for name in ("silent", "clerk"))
    events = list(silent.events(timeout=30))
    assert (kinds(events), said(events)) == ([*WHOLE[:5], "end"], ANSWER)
    list(streamed.events(timeout=30))
    with redis.Redis.from_url(urls.redis_client_url(os.environ["REDIS_URL"])) as client:
        assert not client.exists(f"runwright:live:{silent.id}")
        assert 0 < client.ttl(f"runwright:live:{streamed.id}") <= 3600


def test_a_reopened_run_is_told_on(stack: Stack, follower: CeleryWorker) -> None:
    """Expected: its first end is the last event; after `retry` a watcher goes on from there to the second one."""
    handle = runs.submit(assistant="clerk", input="[[fail bad_thing no x1]][[say better]]", max_attempts=1)
    first = list(handle.events(timeout=30))
    assert (first[-1].kind, first[-1].status, first[-1].error) == (
        "end",
        Status.FAILED,
        {"code": "bad_thing", "message": "no"},
    )
    runs.retry(handle.id)
    then = list(handle.events(first[-1].id, timeout=30))
    assert (kinds(then)[:2], then[-1].status, said(then)) == (["queued", "in_progress"], Status.COMPLETED, "better")


def test_the_async_twin_tells_the_same(stack: Stack, follower: CeleryWorker) -> None:
    """Expected: the same events, and the loop goes on meanwhile."""
    handle = runs.submit(assistant="clerk", input=ASKED)

    async def watched() -> tuple[list[RunEvent], int]:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        counting = asyncio.create_task(count())
        events = [event async for event in handle.events_async()]
        counting.cancel()
        return events, turns

    events, turns = asyncio.run(watched())
    assert events == list(handle.events(timeout=30))
    assert turns > 5


@pytest.fixture
def runwright(nursery: Nursery) -> Runwright:
    """Return what runs the command as a process of its own."""
    return lambda *arguments: nursery.run("tasks.cli.main", *arguments, env=os.environ)


def lines(ended: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_the_command_shows_it(stack: Stack, follower: CeleryWorker, runwright: Runwright) -> None:
    """Expected: the model's words on stdout, the rest on stderr; with --json a line for each event, from --after on."""
    shown = runwright("submit", "--watch", "--assistant", "clerk", ASKED)
    assert (shown.returncode, shown.stdout) == (0, f"{ANSWER}\n")
    assert "calls calculate" in shown.stderr
    handle = runs.submit(assistant="clerk", input=ASKED)
    told = lines(ended := runwright("watch", handle.id, "--json"))
    assert (ended.returncode, told[-1]["kind"], told[-1]["output_text"]) == (0, "end", ANSWER)
    assert lines(runwright("watch", handle.id, "--json", "--after", told[-2]["id"])) == told[-1:]


def test_the_exit_code_tells_the_end(stack: Stack, follower: CeleryWorker, runwright: Runwright) -> None:
    """Expected: 1 for a run that failed or has not ended in time, 2 for no run and for an id that is no event's."""
    failed = runwright("submit", "--watch", "--assistant", "clerk", "[[fail bad_thing no]]")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "failed: bad_thing: no" in failed.stderr
    hanging = runs.submit(assistant="clerk", input="[[hang]]")
    late = runwright("watch", hanging.id, "--timeout", "0.2")
    assert (late.returncode, "it goes on" in late.stderr) == (1, True)
    hanging.cancel()
    assert hanging.wait(30).status is Status.CANCELLED
    assert runwright("watch", "no-such-run").returncode == 2
    assert runwright("watch", hanging.id, "--after", "yesterday").returncode == 2
