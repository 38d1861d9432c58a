"""A response that may be there although nobody was told its id: found, waited for, never created behind its back."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import select

from tests.conformance.ground import PLACE, Ground
from tests.driving import drive_on
from tests.scripted import ask, completed, look
from tests.workbench import Provider, parts
from tools.registry import tool
from worker.backends.base import Created, Done, Ended, Failed, Look, NeedsTools, Step, Tail
from worker.errors import ProviderError
from worker.lifecycle import Status
from worker.models import Attempt
from worker.parts import Parts
from worker.response import Opened, Usage
from worker.run.pace import Held
from worker.store import assistants, leases, progress

ANSWER = Done("an answer", Usage(), "item_1")
LOST = ProviderError("http_504", "the answer was lost", unknown=True)
LOCKED = ProviderError("conversation_locked", "busy", transient=True)
CALL = {"type": "function_call", "name": "peek", "arguments": '{"name": "x"}', "status": "completed"}


@tool(effect="read")
def peek(name: str) -> str:
    """Read something."""
    return f"{name} was read"


@pytest.fixture
def ground(sqlite_url: str) -> Iterator[Ground]:
    """Give a database with an assistant that has a tool, and two workers."""
    ground = Ground(sqlite_url)
    ground.assistant_id = ground.write(assistants.apply, "peeker", {"model": "m", "tools": ["peek"]})[0].id
    ground.boot("w1"), ground.boot("w2")
    yield ground
    ground.close()


class Losing(Provider):
    """Meets its first creates with these errors; `left` is what the first one is found to have come to."""

    def __init__(self, *errors: ProviderError, left: Ended | None = None) -> None:
        super().__init__(ANSWER)
        self.left = left
        self.asked_at: list[float] = []
        self.refused = asyncio.Event()
        self._errors = list(errors)

    async def create(self, step: Step) -> Created:
        self.asked_at.append(monotonic())
        if not self._errors:
            return await super().create(step)
        error = self._errors.pop(0)
        if not error.unknown:
            self.refused.set()
        raise error

    async def adopt(self, step: Step, after: str) -> Ended | None:
        return self.left


async def drive(held: Held, bench: Parts) -> None:
    """Drive a run as an engine does whose lease holds."""
    async with asyncio.timeout(20):
        await drive_on(held, bench)


async def drive_and_tell(held: Held, bench: Parts, when: asyncio.Event, **told: bool) -> None:
    """Drive a run and tell its runner something once the event has come."""
    driving, waiting = asyncio.create_task(drive(held, bench)), asyncio.create_task(when.wait())
    await asyncio.wait({driving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if told:
        held.tell(**told)
    await driving


def attempt(ground: Ground) -> Any:
    """Return the one attempt."""
    with ground.database.read() as connection:
        return connection.execute(select(Attempt)).one()


# ── a create whose answer was lost ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("left", "end"), [(None, (Status.FAILED, "unknown_outcome", True)), (ANSWER, (Status.COMPLETED, None, False))]
)
def test_a_worker_without_the_tool_creates_nothing_anew(
    ground: Ground, left: Ended | None, end: tuple[Status, str | None, bool]
) -> None:
    """Expected: the intent of a dead worker is looked after, also where the tool of its assistant is not loaded."""
    run = ground.submit()
    claim = ground.take("w1")
    ground.commit(claim, progress.set_conversation, Opened("conv_1"), PLACE, "")
    ground.commit(claim, progress.intend, 0, "")
    ground.end_lease("w1")
    ground.write(leases.reap)
    provider = Losing(left=left)
    asyncio.run(drive(Held(ground.take("w2")), parts(ground, provider)))
    row = ground.row(run)
    assert (row.status, row.error_code, attempt(ground).unknown) == end
    assert provider.asked_at == []


def test_a_refused_second_create_keeps_the_intent_of_the_first(ground: Ground) -> None:
    """Expected: handed over while the lock says that the first one goes on, its result is adopted by the next."""
    run = ground.submit()
    provider = Losing(LOST, *[LOCKED] * 1000)
    first = Held(ground.take("w1"))
    bench = parts(ground, provider, peek, on_unknown="create")
    asyncio.run(drive_and_tell(first, bench, provider.refused, stop=True))
    assert (first.handed_over, attempt(ground).intent_step, attempt(ground).unknown) == (True, 0, True)
    ground.hand_over(first.claim)
    provider.left = ANSWER
    asyncio.run(drive(Held(ground.take("w2")), parts(ground, provider, peek, on_unknown="create")))
    assert (ground.status(run), attempt(ground).adopted, provider.created) == (Status.COMPLETED, 1, [])


def test_each_loss_is_looked_after_for_as_long(ground: Ground) -> None:
    """Expected: where it may create again, the whole wait passes after every answer that was lost."""
    run = ground.submit()
    provider = Losing(LOST, LOST, LOST)
    bench = parts(ground, provider, peek, on_unknown="create", adoption_wait=0.1)
    asyncio.run(drive(Held(ground.take()), bench))
    gaps = [after - before for before, after in zip(provider.asked_at, provider.asked_at[1:], strict=False)]
    assert (ground.status(run), len(gaps)) == (Status.COMPLETED, 3)
    assert min(gaps) >= 0.1


# ── calls that nobody will run ────────────────────────────────────────────────────────────────────────────────────────


class Strict(Provider):
    """Has a finished call in its conversation, and refuses what does not answer it."""

    async def tail(self, conversation: str) -> Tail:
        return Tail("fc_2", ("call_1", "call_2"))

    async def create(self, step: Step) -> Created:
        if self.created and "call_1" not in {answer.call_id for answer in step.answers}:
            raise ProviderError("invalid_request", "No tool output found for function call call_1.")
        return await super().create(step)


def test_a_run_behind_an_answer_that_was_cut_completes(ground: Ground) -> None:
    """Expected: the calls in an incomplete answer are answered by the thread's next run, or the provider refuses it."""
    calls = [{**CALL, "id": "fc_1", "call_id": "call_1"}, {**CALL, "id": "fc_2", "call_id": "call_2"}]
    reason = {"reason": "max_output_tokens"}
    cut = ask(completed(status="incomplete", incomplete_details=reason, output=calls), look)
    provider = Strict(cut, ANSWER)
    runs = [ground.submit(), ground.submit()]
    for _ in runs:
        asyncio.run(drive(Held(ground.take()), parts(ground, provider, peek)))
    assert [ground.status(run) for run in runs] == [Status.INCOMPLETE, Status.COMPLETED]
    assert [answer.call_id for answer in provider.created[1].answers] == ["call_1", "call_2"]


# ── a look that gets no answer ────────────────────────────────────────────────────────────────────────────────────────


class Hanging(Provider):
    """Answers no look until it was asked to cancel."""

    def __init__(self) -> None:
        super().__init__(Failed("cancelled", "stopped", Usage(), transient=False))
        self.looking = asyncio.Event()
        self._stopped = asyncio.Event()

    async def look(self, provider_id: str) -> Look:
        self.looking.set()
        await self._stopped.wait()
        return await super().look(provider_id)

    async def cancel(self, provider_id: str) -> None:
        self._stopped.set()


@pytest.mark.parametrize(
    ("told", "seconds", "status"),
    [
        ({"cancel": True}, 600.0, Status.CANCELLED),
        ({"stop": True}, 600.0, Status.IN_PROGRESS),
        ({}, 0.3, Status.EXPIRED),
    ],
    ids=["cancel", "stop", "time limit"],
)
def test_a_look_that_hangs_holds_nothing_up(
    ground: Ground, told: dict[str, bool], seconds: float, status: Status
) -> None:
    """Expected: a cancel, the end of the worker and the run's own time are heeded at once, not after the request."""
    run = ground.submit()
    provider = Hanging()
    held = Held(replace(ground.take(), seconds_left=seconds))
    asyncio.run(drive_and_tell(held, parts(ground, provider, peek), provider.looking, **told))
    assert (ground.status(run), held.handed_over) == (status, held.stopping)


def test_no_step_asks_nothing(ground: Ground) -> None:
    """Expected: a step that wants tools but names none is loud: the provider has the input, this claim no longer."""
    ground.submit()
    provider = Provider(NeedsTools((), Usage(), "item_1"), ANSWER)
    with pytest.raises(RuntimeError, match="goes on from no calls"):
        asyncio.run(drive(Held(ground.take("w1")), parts(ground, provider, peek)))
    assert [step.input for step in provider.created] == [["hello"]]
