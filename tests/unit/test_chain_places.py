"""Steps that live on a connection, runs that stay open for outputs, and threads that move to another place."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update

from tests.conformance.ground import Ground
from tests.unit.test_chain import attempt, drive, drive_and_tell
from tests.unit.test_chain_streams import Stream
from tests.workbench import One, Provider, parts
from tools.registry import tool
from worker.backends.base import Created, Done, Ended, Failed, Look, NeedsTools, Pending, Step
from worker.backends.places import PROTOCOLS, Place
from worker.lifecycle import Status
from worker.models import Conversation, ToolCall
from worker.response import Asked, Item, Opened, Usage
from worker.run.pace import Held
from worker.settings import Settings
from worker.store import assistants, items, leases

ASKED = NeedsTools((Asked("c1", "peek", '{"name": "x"}'),), Usage(), None, items=({"said": "hello"}, {"calls": "c1"}))
ANSWER = Done("an answer", Usage(), None, items=({"output": "c1"}, {"said": "an answer"}))
GONE = Failed("interrupted", "the connection is gone", Usage(), transient=True)


@tool(effect="read")
def peek(name: str) -> str:
    """Read something."""
    return f"{name} was read"


@tool(effect="once")
def pay(name: str) -> str:
    """Pay."""
    return f"{name} was paid"


@pytest.fixture
def ground(sqlite_url: str) -> Iterator[Ground]:
    """Give a database with an assistant that has tools, and two workers."""
    ground = Ground(sqlite_url)
    config = {"model": "m", "tools": ["peek", "pay"], "backend": {"protocol": "chat"}}
    ground.assistant_id = ground.write(assistants.apply, "peeker", config)[0].id
    ground.boot("w1"), ground.boot("w2")
    yield ground
    ground.close()


class Foreground(Provider):
    """Answers each step on its own connection, and knows nothing of one that was left."""

    can = PROTOCOLS["chat"]

    def __init__(self, *streams: Stream) -> None:
        super().__init__(GONE)
        self.streams = list(streams)

    async def open_conversation(self, thread_id: str, history: object = ()) -> Opened:
        return Opened(f"local_{thread_id}")

    async def create(self, step: Step) -> Created:
        created = await super().create(replace(step, history=list(step.history)))
        return Created(created.id, following=self.streams.pop(0), keeps_slot=True)

    async def cancel(self, provider_id: str) -> None:
        assert not self.streams


class Gated(Stream):
    """Ends when it is let go on."""

    def __init__(self, end: Ended) -> None:
        super().__init__(end)
        self.go_on = asyncio.Event()

    async def ended(self, seconds: float) -> Ended | None:
        self.followed.set()
        await self.go_on.wait()
        return self._end


def kept(ground: Ground, conversation: str = "local_t") -> list[Item]:
    with ground.database.read() as connection:
        return items.of(connection, conversation)


def test_a_conversation_that_nobody_else_keeps_is_kept_here(ground: Ground) -> None:
    """Expected: each step gets all that was said before it, and its own words stand behind that when it has ended."""
    run, provider = ground.submit(), Foreground(Stream(ASKED), Stream(ANSWER))
    asyncio.run(drive(Held(ground.take()), parts(ground, provider, peek, pay)))
    assert ground.status(run) is Status.COMPLETED
    first, second = provider.created
    assert (first.history, second.history) == ([], list(ASKED.items))
    assert ([answer.output for answer in second.answers], second.input) == (["x was read"], ())
    assert kept(ground) == [*ASKED.items, *ANSWER.items]


def test_a_later_run_of_the_thread_is_told_what_was_said(ground: Ground) -> None:
    """Expected: a new run begins with the kept items and brings its own input."""
    ground.submit(), ground.submit()
    asyncio.run(drive(Held(ground.take()), parts(ground, Foreground(Stream(ANSWER)), peek, pay)))
    provider = Foreground(Stream(ANSWER))
    asyncio.run(drive(Held(ground.take()), parts(ground, provider, peek, pay)))
    (step,) = provider.created
    assert (step.history, bool(step.input)) == (list(ANSWER.items), True)


def test_a_connection_that_breaks_fails_the_attempt_and_adds_nothing(ground: Ground) -> None:
    """Expected: the next attempt goes on from the last settled step, in the same conversation."""
    run, provider = ground.submit(), Foreground(Stream(ASKED), Stream())
    asyncio.run(drive(Held(ground.take()), parts(ground, provider, peek, pay)))
    assert (ground.status(run), kept(ground)) == (Status.QUEUED, list(ASKED.items))
    ground.make_due(run)
    again = Foreground(Stream(ANSWER))
    asyncio.run(drive(Held(ground.take()), parts(ground, again, peek, pay)))
    assert (ground.status(run), again.created[0].input) == (Status.COMPLETED, ())
    assert [answer.call_id for answer in again.created[0].answers] == ["c1"]


def test_a_step_whose_worker_died_is_asked_for_again_and_counted(ground: Ground) -> None:
    """Expected: the same attempt asks once more; nothing is looked for at a provider that cannot know."""
    run, provider = ground.submit(), Foreground(Gated(ANSWER))
    claim, followed = ground.take("w1"), provider.streams[0].followed

    async def die() -> None:
        driving = asyncio.create_task(drive(Held(claim), parts(ground, provider, peek, pay)))
        await asyncio.wait_for(followed.wait(), 10)
        driving.cancel()
        await asyncio.gather(driving, return_exceptions=True)

    asyncio.run(die())
    ground.end_lease("w1")
    ground.write(leases.reap)
    again = Foreground(Stream(ANSWER))
    asyncio.run(drive(Held(ground.take("w2")), parts(ground, again, peek, pay)))
    assert (ground.status(run), attempt(ground).reissued, again.looked) == (Status.COMPLETED, 1, [])


def test_a_worker_that_stops_lets_such_a_step_end(ground: Ground) -> None:
    """Expected: what would be lost gets the grace of a tool; the step is settled, then the run is handed over."""
    stream = Gated(ASKED)
    run, provider, held = ground.submit(), Foreground(stream), Held(ground.take())

    async def story() -> None:
        stopping = drive_and_tell(held, parts(ground, provider, peek, pay), stream.followed, stop=True)
        driving = asyncio.create_task(stopping)
        await asyncio.wait_for(stream.followed.wait(), 10)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(driving), 0.1)
        stream.go_on.set()
        await driving

    asyncio.run(story())
    assert (held.handed_over, ground.row(run).step, ground.status(run)) == (True, 1, Status.REQUIRES_ACTION)


def test_a_cancel_closes_the_connection_at_once(ground: Ground) -> None:
    """Expected: cancelled without waiting for the answer, whose connection is closed."""
    stream = Gated(ANSWER)
    run, provider, held = ground.submit(), Foreground(stream), Held(ground.take())
    asyncio.run(drive_and_tell(held, parts(ground, provider, peek, pay), stream.followed, cancel=True))
    assert (ground.status(run), stream.closed) == (Status.CANCELLED, 1)


# ── a run that the provider holds open for outputs ────────────────────────────────────────────────────────────────────


class Holding(Provider):
    """Keeps a step open until it has the outputs: all steps of an attempt have one id."""

    can = PROTOCOLS["assistants"]

    def __init__(self, *looks: Look) -> None:
        super().__init__(*looks)
        self.cancelled: list[str] = []

    async def create(self, step: Step) -> Created:
        await super().create(step)
        return Created(step.previous or "thread/run")

    async def cancel(self, provider_id: str) -> None:
        self.cancelled.append(provider_id)


def holding(ground: Ground, *names: str) -> None:
    config = {"model": "m", "tools": list(names), "backend": {"protocol": "assistants"}}
    ground.assistant_id = ground.write(assistants.apply, "holder", config)[0].id


def test_outputs_go_to_the_run_that_waits_for_them(ground: Ground) -> None:
    """Expected: the second step names the first one's run, and each counts as a step of its own."""
    holding(ground, "peek")
    run, provider = ground.submit(), Holding(ASKED, ANSWER)
    asyncio.run(drive(Held(ground.take()), parts(ground, provider, peek)))
    assert ground.status(run) is Status.COMPLETED
    assert [step.previous for step in provider.created] == [None, "thread/run"]
    assert attempt(ground).provider_ids == ["thread/run", "thread/run"]


def test_a_run_that_fails_meanwhile_is_not_left_open(ground: Ground) -> None:
    """Expected: what waits for outputs that will not come is cancelled there, and the thread stays where it is."""
    holding(ground, "peek")
    ended = Failed("cancelled", "stopped", Usage(), transient=False)
    run, provider = ground.submit(), Holding(ASKED, ended)
    asyncio.run(drive(Held(ground.take()), parts(ground, provider, peek, max_steps=1)))
    assert (ground.row(run).error_code, provider.cancelled) == ("max_steps", ["thread/run"])
    with ground.database.read() as connection:
        assert connection.execute(select(Conversation.left_at)).scalar_one() is None


# ── other places ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_thread_that_is_served_elsewhere_goes_on_with_its_messages(ground: Ground) -> None:
    """Expected: a fresh conversation at the new place; the old one is left, and calls open there are closed."""
    ground.submit()
    asyncio.run(drive(Held(ground.take()), parts(ground, Foreground(Stream(ANSWER)), peek, pay)))
    holding(ground)
    moved, provider = ground.submit(), Holding(ANSWER)
    asyncio.run(drive(Held(ground.take()), parts(ground, provider)))
    assert (ground.status(moved), provider.created[0].conversation) == (
        Status.COMPLETED,
        "conversation of t with 2 messages",
    )
    with ground.database.read() as connection:
        rows = connection.execute(select(Conversation.place, Conversation.left_at).order_by(Conversation.created_at))
        assert [(place.split()[0], left is not None) for place, left in rows] == [("chat", True), ("assistants", False)]


def test_a_run_that_began_a_once_call_does_not_start_over_elsewhere(ground: Ground) -> None:
    """Expected: failed and said so, where its default backend was changed while it was under way."""
    paid = NeedsTools((Asked("c1", "pay", '{"name": "x"}'),), Usage(), None)
    run = ground.submit()
    asyncio.run(drive(Held(ground.take()), parts(ground, Foreground(Stream(paid), Stream()), peek, pay)))
    with ground.database.write() as connection:
        connection.execute(update(Conversation).values(place="responses - OPENAI_API_KEY"))
        assert connection.execute(select(ToolCall.starts)).scalar_one() == 1
    ground.make_due(run)
    asyncio.run(drive(Held(ground.take()), parts(ground, Foreground(), peek, pay)))
    assert (ground.status(run), ground.row(run).error_code) == (Status.FAILED, "backend_changed")


class Slow(Provider):
    """Says when it is looked at."""

    def __init__(self) -> None:
        super().__init__(Pending())
        self.seen = asyncio.Event()

    async def look(self, provider_id: str) -> Look:
        self.seen.set()
        return await super().look(provider_id)


class Noting(One):
    """Remembers which places it was asked for."""

    def __init__(self, settings: Settings, provider: Provider) -> None:
        super().__init__(settings, provider)
        self.asked: list[Place] = []

    def at(self, place: Place) -> Provider:
        self.asked.append(place)
        return super().at(place)


@pytest.mark.parametrize("named", ["chat", "assistants"])
def test_a_step_that_is_under_way_is_waited_for_where_it_is(ground: Ground, named: str) -> None:
    """Expected: a new default backend is for what begins later; the response that was paid for is looked at."""
    ground.assistant_id = ground.write(assistants.apply, "anywhere", {"model": "m"})[0].id
    run, provider, held = ground.submit(), Slow(), Held(ground.take("w1"))
    asyncio.run(drive_and_tell(held, parts(ground, provider), provider.seen, stop=True))
    ground.write(leases.hand_over, "w1", {run: None})
    later = Provider(ANSWER)
    bench = parts(ground, later, backend=named)
    backends = Noting(bench.settings, later)
    asyncio.run(drive(Held(ground.take("w2")), replace(bench, backends=backends)))
    assert (ground.status(run), later.created, later.looked) == (Status.COMPLETED, [], ["response 1"])
    assert backends.asked == [Place("responses", None, "OPENAI_API_KEY")]


@pytest.mark.parametrize(
    ("key", "value", "backend"),
    [("hosted_tools", {"code_interpreter": {}}, "chat"), ("max_prompt_tokens", 300, "responses-stateless")],
)
def test_a_run_never_goes_without_what_its_backend_lacks(ground: Ground, key: str, value: Any, backend: str) -> None:
    """Expected: where the workers' default backend is not the one it was applied for, it fails and says why, unpaid."""
    ground.assistant_id = ground.write(assistants.apply, "asking", {"model": "m", key: value})[0].id
    run, provider = ground.submit(), Foreground()
    asyncio.run(drive(Held(ground.take()), parts(ground, provider, backend=backend)))
    row = ground.row(run)
    assert (row.status, row.error_code, provider.created) == (Status.FAILED, "unsupported", [])
    assert f"the backend '{backend}' has no '{key}'" in row.error_message


def test_a_worker_without_the_key_lets_the_run_go_to_others(ground: Ground) -> None:
    """Expected: the run is due again as it was; when no worker has the key, time and again, it has failed for that."""
    config = {"model": "m", "backend": {"protocol": "responses", "api_key": "RUNWRIGHT_KEY_ELSEWHERE"}}
    ground.assistant_id = ground.write(assistants.apply, "keyless", config)[0].id
    run = ground.submit()
    seen = []
    for _ in range(3):
        bench = parts(ground, Foreground())
        bench = replace(bench, backends=Keyless(bench.settings, Foreground()))
        asyncio.run(drive(Held(ground.take()), bench))
        seen.append(ground.status(run))
        if ground.status(run) is not Status.FAILED:
            ground.make_due(run)
    assert seen == [Status.IN_PROGRESS, Status.IN_PROGRESS, Status.FAILED]
    assert ground.row(run).error_code == "missing_key"
    assert "RUNWRIGHT_KEY_ELSEWHERE is not set" in ground.row(run).error_message


class Keyless(One):
    """Looks for keys as the real one does."""

    def at(self, place: Place) -> Provider:
        self._make(place)
        raise AssertionError("there is no such key")
