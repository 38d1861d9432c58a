"""An engine that ends while a tool runs: the other runs go at once, nothing more is claimed, the tool has its time."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, select

from tests.conformance.ground import Ground
from tests.servers import wait_until
from tests.workbench import Provider, parts
from tools.registry import tool
from worker.backends.base import Look, NeedsTools, Pending
from worker.engine import Engine
from worker.lifecycle import Status
from worker.models import ToolCall
from worker.parts import Parts
from worker.response import Asked, Usage
from worker.store import assistants, claiming, leases, reading

NEEDS_TOOL = NeedsTools((Asked("c1", "pay", "{}"),), Usage(), "item_1")


class Waiting(Provider):
    """Works on every response for ever; the first one asks for its tool when told to."""

    def __init__(self) -> None:
        super().__init__(Pending())
        self.asks = False

    async def look(self, provider_id: str) -> Look:
        look = await super().look(provider_id)
        return NEEDS_TOOL if self.asks and provider_id == "response 1" else look


class Busy:
    """An engine with two runs: the first will call a tool that ends when it is let, the second only waits."""

    def __init__(self, url: str, **settings: float) -> None:
        self.ground = Ground(url)
        self.ground.assistant_id = self.ground.write(assistants.apply, "payer", {"model": "m", "tools": ["pay"]})[0].id
        self.provider = Waiting()
        self.began, self.end, self.died = threading.Event(), threading.Event(), threading.Event()
        self.handed_over = threading.Event()
        self.engine = Engine("node", ["default"], lambda: self._parts(settings), lambda _queues: None)
        self.engine.start(self.died.set)
        self.first = self.submit("first", 1)
        self.second = self.submit("second", 2)

    def _parts(self, settings: dict[str, float]) -> Parts:
        @tool(effect="once")
        def pay() -> str:
            """Change something for good."""
            self.began.set()
            self.end.wait(20)
            return "paid"

        def heard(name: str, _fields: Any) -> None:
            if name == "run.handed_over":
                self.handed_over.set()

        bench = parts(self.ground, self.provider, pay, **settings)
        bench.events.subscribe(heard)
        return bench

    def submit(self, thread: str, responses: int) -> str:
        """Submit a run and wait for its response."""
        run = self.ground.submit(thread)
        self.engine.wake()
        wait_until(lambda: len(self.provider.created) == responses, "a response")
        return run

    def call_tool(self) -> None:
        """Let the first run call its tool, and wait until that has begun."""
        self.provider.asks = True
        assert self.began.wait(20)

    def owner(self, run: str) -> Any:
        return self.ground.row(run).owner

    def output(self) -> str | None:
        """Return what the ledger has of the tool's call."""
        with self.ground.database.read() as connection:
            return connection.execute(select(ToolCall.output)).scalar_one()

    def close(self) -> None:
        self.end.set()
        self.engine.stop(20)
        self.ground.close()


@pytest.fixture
def busy(sqlite_url: str, request: pytest.FixtureRequest) -> Iterator[Busy]:
    """Give a busy engine with the settings of the parameter."""
    busy = Busy(sqlite_url, **request.param)
    yield busy
    busy.close()


@pytest.mark.parametrize("busy", [{"lease": 1, "tool_grace": 20}], indirect=True)
def test_a_run_that_was_claimed_again_is_not_released_by_its_old_runner(busy: Busy) -> None:
    """Expected: after a lost lease the process has both runs anew; at its end only the waiting one goes at once."""
    old = busy.engine.worker
    busy.ground.write(leases.leave, old)
    wait_until(lambda: {busy.owner(busy.first), busy.owner(busy.second)}.isdisjoint({old, None}), "both claimed anew")
    busy.call_tool()
    busy.engine.begin_stop()
    wait_until(lambda: busy.owner(busy.second) is None, "the hand-over of the waiting run")
    assert busy.owner(busy.first) == busy.engine.worker
    busy.end.set()
    assert busy.engine.stop(20)
    assert (busy.owner(busy.first), busy.output()) == (None, "paid")


@pytest.mark.parametrize("busy", [{"tool_grace": 60}], indirect=True)
def test_runs_whose_claim_commits_at_the_end_go_at_once(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: a claim that was under way is let go with the waiting runs, not after the time that tools have."""
    committing = threading.Event()
    claim = claiming.claim

    def late_claim(connection: Connection, *args: Any) -> Any:
        committing.set()
        assert busy.handed_over.wait(20)
        return claim(connection, *args)

    busy.call_tool()
    monkeypatch.setattr(claiming, "claim", late_claim)
    late = busy.ground.submit("late")
    busy.engine.wake()
    assert committing.wait(20)
    busy.engine.begin_stop()
    wait_until(lambda: (row := busy.ground.row(late)).fence and row.owner is None, "the end of a late claim")
    assert busy.owner(busy.first) == busy.engine.worker
    assert busy.ground.row(late).attempt == 1


@pytest.mark.parametrize("busy", [{"tool_grace": 0.5}], indirect=True)
def test_an_engine_that_dies_claims_nothing_more(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: a side task that dies ends the engine; what it lets go and what comes later stays in the queue."""

    def bug(_connection: Connection, _worker: str) -> list[str]:
        raise RuntimeError("a bug of ours")

    busy.call_tool()
    monkeypatch.setattr(leases, "cancels", bug)
    assert busy.handed_over.wait(20)
    late = busy.ground.submit("late")
    busy.engine.wake()
    assert busy.died.wait(20)
    assert busy.engine.failed
    assert (busy.ground.status(late), busy.ground.row(late).fence) == (Status.QUEUED, 0)
    assert (busy.owner(busy.second), len(busy.provider.created)) == (None, 2)


@pytest.mark.parametrize("busy", [{"tool_grace": 0.5}], indirect=True)
def test_an_engine_that_dies_of_a_claim_ends_like_any_other(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: the tool has its grace, what waits is handed over, and the worker takes its leave of the database."""

    def bug(_connection: Connection, *_args: Any) -> list[Any]:
        raise RuntimeError("a bug of ours")

    busy.call_tool()
    monkeypatch.setattr(claiming, "claim", bug)
    late = busy.ground.submit("late")
    busy.engine.wake()
    assert busy.died.wait(20)
    assert busy.engine.failed
    assert (busy.ground.status(late), busy.owner(busy.second)) == (Status.QUEUED, None)
    with busy.ground.database.read() as connection:
        assert reading.living_workers(connection) == []


@pytest.mark.parametrize("busy", [{"tool_grace": 0.5}], indirect=True)
def test_an_engine_whose_loop_has_ended_may_be_told_anything(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: a doorbell and a stop that come between the end of its loop and that of its thread raise nothing."""

    def bug(_connection: Connection, _worker: str) -> list[str]:
        raise RuntimeError("a bug of ours")

    def told() -> None:
        busy.engine.wake()
        busy.engine.begin_stop()
        busy.engine.begin_stop()
        busy.died.set()

    busy.engine._on_death = told  # called by the engine's own thread, behind the loop
    monkeypatch.setattr(leases, "cancels", bug)
    assert busy.died.wait(20)
