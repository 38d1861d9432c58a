"""Tool calls that were interrupted, or ran out of time: what runs again, how often, and what the model is told."""

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, select

from tests.conformance.ground import PLACE, Ground
from tests.driving import drive_on
from tests.workbench import Provider, parts
from tools.registry import tool
from worker.backends.base import Pending
from worker.lifecycle import Status
from worker.models import ToolCall
from worker.response import Answer, Asked, Opened, Usage
from worker.run.calls import Calls
from worker.run.pace import Held, Pace
from worker.store import assistants, deciding, ledger, progress, settling
from worker.store.asking import ask_cancel
from worker.store.claiming import Claim

_ran: list[str] = []


@tool(effect="read")
def peek(name: str) -> str:
    """Read something."""
    _ran.append(name)
    return f"{name} was read"


@tool(effect="once")
def pay(name: str) -> str:
    """Change something for good."""
    _ran.append(name)
    return f"{name} was paid"


@tool(effect="once", timeout=0.05)
def pay_slowly(name: str) -> str:
    """Change something for good, and take one's time."""
    _ran.append(name)
    _released.wait(10)
    return "too late"


_released = threading.Event()
NAMES = ["peek", "pay", "pay_slowly", "pay_online"]


@pytest.fixture
def ground(sqlite_url: str) -> Iterator[Ground]:
    """Give a database whose assistant has the tools, and a worker."""
    ground = Ground(sqlite_url)
    ground.assistant_id = ground.write(assistants.apply, "caller", {"model": "m", "tools": NAMES})[0].id
    ground.boot()
    _ran.clear()
    _released.clear()
    yield ground
    _released.set()
    ground.close()


def asking(ground: Ground, function: str) -> Claim:
    """Return a held run whose first response has asked for this function."""
    ground.submit()
    claim = ground.take()
    ground.commit(claim, progress.set_conversation, Opened("conv_1"), PLACE, "")
    calls = [Asked("c1", function, json.dumps({"name": function}))]
    ground.commit(claim, progress.need_tools, effects={}, step=0, calls=calls, usage=Usage(), last_item="item_1")
    return claim


def interrupted(ground: Ground, claim: Claim) -> Claim:
    """Let the call begin and its worker end; return the run in the hands of the next."""
    ground.commit(claim, ledger.start, ["c1"])
    ground.hand_over(claim)
    return ground.take()


def answers(ground: Ground, claim: Claim, seconds: float = 60) -> list[Answer]:
    """Answer the open calls as a runner does that has so many seconds left."""

    async def main() -> list[Answer]:
        bench = parts(ground, Provider(Pending()), peek, pay, pay_slowly)
        held = Held(replace(claim, seconds_left=seconds))
        return await Calls(Pace(held, bench, lambda: True)).answers()

    return asyncio.run(main())


def kept(ground: Ground) -> Any:
    """Return the one row of the ledger."""
    with ground.database.read() as connection:
        return connection.execute(select(ToolCall)).one()


def error_of(answer: Answer) -> str:
    return str(json.loads(answer.output)["error"]["type"])


def test_a_read_that_was_interrupted_runs_again(ground: Ground) -> None:
    """Twice interrupted, it begins a third time and its output is kept."""
    claim = asking(ground, "peek")
    for _ in range(2):
        claim = interrupted(ground, claim)
    assert answers(ground, claim) == [Answer("c1", "peek was read")]
    assert (_ran, kept(ground).status, kept(ground).starts) == (["peek"], "completed", 3)


def test_a_read_that_is_interrupted_every_time_is_given_up(ground: Ground) -> None:
    """After three starts it takes down no further worker: the model is told of the doubt."""
    claim = asking(ground, "peek")
    for _ in range(3):
        claim = interrupted(ground, claim)
    (answer,) = answers(ground, claim)
    assert (error_of(answer), _ran) == ("in_doubt", [])
    assert (kept(ground).starts, kept(ground).output) == (3, answer.output)


def test_a_call_with_effects_that_was_interrupted_never_runs_again(ground: Ground) -> None:
    """The doubt is its answer, in the ledger for good: the next to ask reads the same."""
    claim = interrupted(ground, asking(ground, "pay"))
    (answer,) = answers(ground, claim)
    row = kept(ground)
    assert (error_of(answer), _ran) == ("in_doubt", [])
    assert (row.status, row.error, row.output, row.finished_at is not None) == (
        "failed",
        "in_doubt",
        answer.output,
        True,
    )
    assert answers(ground, claim) == [answer]


def test_a_call_that_nobody_began_runs_once(ground: Ground) -> None:
    """A second asking finds its output."""
    claim = asking(ground, "pay")
    assert answers(ground, claim) == answers(ground, claim) == [Answer("c1", "pay was paid")]
    assert _ran == ["pay"]


def test_a_call_with_effects_that_outlasts_its_limit_is_in_doubt(ground: Ground) -> None:
    """It has begun, so nobody can say that it had no effect."""
    claim = asking(ground, "pay_slowly")
    (answer,) = answers(ground, claim)
    assert (error_of(answer), kept(ground).error, _ran) == ("in_doubt", "in_doubt", ["pay_slowly"])


def test_a_call_that_had_no_time_to_begin_is_not_in_doubt(ground: Ground) -> None:
    """The run's time is over before: a plain timeout, without any effect."""
    (answer,) = answers(ground, asking(ground, "pay_slowly"), seconds=0)
    assert (error_of(answer), kept(ground).error, _ran) == ("timeout", "timeout", [])


def test_a_call_that_was_answered_meanwhile_does_not_run(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output that is stored after the open calls were read stays, and nothing else is begun."""
    claim = asking(ground, "pay")
    read = ledger.still_open

    def answered_behind(connection: Connection, thread_id: str) -> Any:
        calls = read(connection, thread_id)
        ground.commit(claim, ledger.finish, "c1", status="completed", output="a person paid", error=None)
        return calls

    monkeypatch.setattr(ledger, "still_open", answered_behind)
    answers(ground, claim)
    assert (kept(ground).output, kept(ground).starts, _ran) == ("a person paid", 0, [])


def test_a_question_that_expired_is_answered_while_another_is_still_asked(ground: Ground) -> None:
    """Expected: the run waits for the one that is left, and is due once a person has answered that."""
    config = {"model": "m", "tools": ["peek", "pay"], "approval": ["peek"]}
    ground.assistant_id = ground.write(assistants.apply, "caller", config)[0].id
    ground.submit()
    claim = ground.take()
    ground.commit(claim, progress.set_conversation, Opened("conv_1"), PLACE, "")
    calls = [Asked("c1", "peek", "{}"), Asked("c2", "pay", "{}")]
    ground.commit(claim, progress.need_tools, effects={}, step=0, calls=calls, usage=Usage(), last_item=None)
    ground.commit(claim, deciding.ask, ["c1"], "approval", -1.0)
    ground.commit(claim, ledger.start, ["c2"])
    ground.commit(claim, deciding.ask, ["c2"], "in_doubt", 60.0)
    ground.hand_over(claim)
    bench = parts(ground, Provider(Pending()), peek, pay, in_doubt="ask")
    asyncio.run(drive_on(Held(ground.take()), bench))
    assert ground.claimed() == []
    with ground.database.read() as connection:
        expired, asked = ledger.still_open(connection, "t")
    assert (expired.decision, asked.question, asked.decision) == ("expired", "in_doubt", None)
    assert ground.write(deciding.answer, claim.run_id, "c2", by="ann", output="paid").queue == "default"


def test_a_cancel_leaves_a_call_its_output_that_ends_meanwhile(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tool ends while the cancel is being shown: its output is stored, and its run ends cancelled all the same."""
    began, go, finishing, shown = asyncio.Event(), asyncio.Event(), asyncio.Event(), asyncio.Event()

    @tool(effect="once")
    async def pay_online(name: str) -> str:
        """Change something for good, elsewhere."""
        began.set()
        await go.wait()
        return f"{name} was paid"

    bench = parts(ground, Provider(Pending()), peek, pay, pay_slowly, pay_online)
    commit = bench.store.commit

    async def in_step(claim: Claim, unit: Any, *args: Any, **options: Any) -> Any:
        if unit is settling.start_cancelling:
            go.set()
            await finishing.wait()
        elif unit is ledger.finish:
            finishing.set()
            await shown.wait()
        written = await commit(claim, unit, *args, **options)
        if unit is settling.start_cancelling:
            shown.set()
        return written

    async def main() -> None:
        held = Held(ground.take())
        async with asyncio.timeout(20):
            driving = asyncio.create_task(drive_on(held, bench))
            await began.wait()
            ground.write(ask_cancel, held.claim.run_id)
            held.tell(cancel=True)
            await driving

    ground.hand_over(asking(ground, "pay_online"))
    monkeypatch.setattr(bench.store, "commit", in_step)
    asyncio.run(main())
    call = kept(ground)
    assert (call.status, call.output) == ("completed", "pay_online was paid")
    assert ground.status(call.run_id) == Status.CANCELLED


def test_a_cancel_that_comes_while_a_start_is_committed_ends_the_call(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expected: nobody listened in that moment, and the function ends at once all the same."""
    ended = asyncio.Event()

    @tool(effect="read")
    async def pay_online(name: str) -> str:
        """Wait for ever."""
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return name

    claim = asking(ground, "pay_online")

    async def main() -> None:
        bench = parts(ground, Provider(Pending()), pay_online)
        held, commit = Held(claim), bench.store.commit

        async def told_behind(claim: Claim, unit: Any, *args: Any, **options: Any) -> Any:
            written = await commit(claim, unit, *args, **options)
            if unit is ledger.start:
                held.tell(cancel=True)
            return written

        monkeypatch.setattr(bench.store, "commit", told_behind)
        async with asyncio.timeout(20):
            await Calls(Pace(held, bench, lambda: True)).answers()
            await ended.wait()

    ground.write(ask_cancel, claim.run_id)
    asyncio.run(main())
    assert kept(ground).error == "cancelled"
