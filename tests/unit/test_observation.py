"""Observation never harms a run: subscribers may fail, Redis may be slow, and Flower gets names, never texts."""

import json
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from celery import Celery

from worker.broker.outlet import Outlet
from worker.lifecycle import Status
from worker.observation.events import Events
from worker.observation.flower import FlowerEvents
from worker.store.claiming import Claim


def claim(attempt: int = 1, **changes: Any) -> Claim:
    whole = Claim(
        run_id="run-1",
        thread_id="thread-1",
        seq=1,
        worker="worker-1",
        fence=1,
        status=Status.IN_PROGRESS,
        attempt=attempt,
        max_attempts=3,
        step=0,
        input=[{"type": "text", "text": "a secret question"}],
        metadata={},
        store_result=False,
        on_end=None,
        priority=5,
        batch_id=None,
        assistant="clerk",
        config={"model": "m"},
        conversation=None,
        place=None,
        last_item=None,
        provider_id=None,
        previous=None,
        intent_step=None,
        intent_after=None,
        step_age=0.0,
        seen=None,
        created=0,
        reissued=0,
        timeout=60.0,
        seconds_left=60.0,
        stood=0.0,
        cancelling=False,
    )
    return replace(whole, **changes)


class Recorder:
    """A dispatcher of Celery's that keeps what it is to send, message by message."""

    def __init__(self) -> None:
        self.messages: list[list[tuple[str, dict[str, Any]]]] = []
        self._buffer: list[tuple[str, dict[str, Any]]] = []

    def send(self, event: str, *, timestamp: float, **fields: Any) -> None:
        assert abs(timestamp - time.time()) < 60
        self._buffer.append((event, fields))

    def flush(self, *, errors: bool) -> None:
        assert not errors
        self.messages.append(self._buffer)
        self._buffer = []


def told(*events: tuple[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Send the events through an outlet of their own and return what Flower would get: all in one message."""
    outlet = Outlet()
    flower = FlowerEvents(Celery("test", set_as_current=False), "node", outlet)
    flower._dispatcher = recorder = Recorder()
    for name, fields in events:
        flower(name, fields)
    outlet.start()
    outlet.stop()
    (message,) = recorder.messages
    return message


def test_a_failing_subscriber_stops_neither_the_emitter_nor_the_others() -> None:
    """Every other subscriber still hears the event, and emit returns."""
    events = Events()
    heard: list[str] = []

    def broken(_name: str, _fields: object) -> None:
        raise RuntimeError("no")

    events.subscribe(broken)
    events.subscribe(lambda name, _fields: heard.append(name))
    events.emit("run.ended", status="completed")

    assert heard == ["run.ended"]


def test_the_outlet_goes_on_after_a_call_that_fails() -> None:
    """A call that raises is logged; those behind it are made, in order, before stop returns."""
    outlet = Outlet()
    made: list[int] = []
    outlet.put(lambda: made.append(1))
    outlet.put(lambda: 1 // 0)
    outlet.put(lambda: made.append(2))
    outlet.start()
    outlet.stop()

    assert made == [1, 2]


def test_what_is_asked_for_soon_is_done_once_for_all_who_asked() -> None:
    """Two askings before it is made are one call, and one after it is a second; at the stop none is left out."""
    outlet = Outlet()
    made: list[int] = []
    done = threading.Event()

    def call() -> None:
        made.append(1)
        done.set()

    outlet.start()
    outlet.soon(call, 0.2)
    outlet.soon(call, 0.2)
    assert done.wait(10)
    outlet.soon(call, 60.0)
    outlet.stop()
    assert made == [1, 1]


def test_the_outlet_never_blocks_its_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no room left a call is dropped, not waited for."""
    monkeypatch.setattr("worker.broker.outlet._ROOM", 1)
    outlet = Outlet()
    outlet.put(lambda: None)
    finished = threading.Event()

    def put() -> None:
        outlet.put(lambda: None)
        finished.set()

    threading.Thread(target=put, daemon=True).start()

    assert finished.wait(5)


def test_a_completed_run_is_received_started_and_succeeded() -> None:
    """Flower sees the row of a task runs.run with the run's id, and never the input."""
    sent = told(
        ("run.claimed", {"claim": claim()}), ("run.ended", {"claim": claim(), "status": "completed", "seconds": 1.5})
    )

    assert [event for event, _ in sent] == ["task-received", "task-started", "task-succeeded"]
    assert {fields["uuid"] for _, fields in sent} == {"run-1"}
    assert sent[0][1]["name"] == "runs.run"
    assert json.loads(sent[0][1]["args"]) == ["clerk", "thread-1"]
    assert "secret" not in json.dumps(sent)


def test_a_second_attempt_counts_as_a_retry() -> None:
    """The first attempt ends as task-retried, and the second is received with retries 1."""
    sent = told(
        ("run.claimed", {"claim": claim()}),
        ("run.retried", {"claim": claim(), "code": "server_error"}),
        ("run.claimed", {"claim": claim(attempt=2)}),
    )

    assert sent[2] == ("task-retried", {"uuid": "run-1", "exception": "server_error", "traceback": ""})
    assert sent[3][1]["retries"] == 1


@pytest.mark.parametrize(
    ("status", "event"),
    [
        ("failed", "task-failed"),
        ("expired", "task-failed"),
        ("incomplete", "task-failed"),
        ("cancelled", "task-revoked"),
    ],
)
def test_every_other_end_has_its_task_event(status: str, event: str) -> None:
    """A run that did not complete is failed in Flower, a cancelled one revoked."""
    sent = told(("run.ended", {"claim": claim(), "status": status, "code": "x", "seconds": 1.5}))

    assert [name for name, _ in sent] == [event]
