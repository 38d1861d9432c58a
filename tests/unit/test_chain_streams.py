"""A step that is followed: its end comes without a look, and whatever the engine says is heeded beside the stream."""

import asyncio

import pytest

from tests.conformance.ground import Ground
from tests.unit.test_chain import drive, drive_and_tell
from tests.workbench import Provider, parts
from worker.backends.base import Created, Done, Ended, Failed, Look, Pending, Step
from worker.lifecycle import Status
from worker.response import Usage
from worker.run.pace import Held
from worker.store import assistants

ANSWER = Done("an answer", Usage(), "item_1")
STOPPED = Failed("cancelled", "stopped", Usage(), transient=False)


class Stream:
    """Tells this end, breaks where it is None, or says nothing for ever."""

    def __init__(self, end: Ended | None = None, *, silent: bool = False) -> None:
        self.broken = False
        self.closed = 0
        self.followed = asyncio.Event()
        self._end = end
        self._silent = silent

    async def ended(self, seconds: float) -> Ended | None:
        self.followed.set()
        if self._silent:
            await asyncio.sleep(seconds)
            return None
        self.broken = self._end is None
        return self._end

    def close(self) -> None:
        self.closed += 1


class Streaming(Provider):
    """Gives each step that asks for it this stream."""

    def __init__(self, stream: Stream, *looks: Look) -> None:
        super().__init__(*looks)
        self._stream = stream

    async def create(self, step: Step) -> Created:
        created = await super().create(step)
        return Created(created.id, following=self._stream if step.stream else None)

    async def cancel(self, provider_id: str) -> None:
        assert self._stream.closed


def test_an_end_that_is_told_needs_no_look(ground: Ground) -> None:
    """Expected: the run completes with the answer of the stream, which is closed."""
    run, stream = ground.submit(), Stream(ANSWER)
    provider = Streaming(stream, STOPPED)
    asyncio.run(drive(Held(ground.take()), parts(ground, provider, stream="on", poll_max=600)))
    assert (ground.status(run), provider.looked, stream.closed) == (Status.COMPLETED, [], 1)


def test_a_stream_that_breaks_is_followed_by_looks(ground: Ground) -> None:
    """Expected: a look at once at the same response, then others as ever; nothing is created again."""
    run, stream = ground.submit(), Stream()
    provider = Streaming(stream, Pending(), ANSWER)
    asyncio.run(drive(Held(ground.take()), parts(ground, provider, stream="on")))
    assert (ground.status(run), provider.looked, len(provider.created)) == (Status.COMPLETED, ["response 1"] * 2, 1)
    assert stream.closed == 1


def test_a_silent_stream_is_not_trusted(ground: Ground) -> None:
    """Expected: now and then a look, which finds the end that the stream has kept back."""
    run, stream = ground.submit(), Stream(silent=True)
    provider = Streaming(stream, Pending(queued=True), ANSWER)
    asyncio.run(drive(Held(ground.take()), parts(ground, provider, stream="on")))
    assert (ground.status(run), len(provider.looked), stream.closed) == (Status.COMPLETED, 2, 1)


def test_the_watchdog_watches_a_silent_stream_too(ground: Ground) -> None:
    """Expected: a step that the provider leaves in its queue is stopped, and its stream left."""
    run, stream = ground.submit(max_attempts=1), Stream(silent=True)
    provider = Streaming(stream, Pending(queued=True), STOPPED)
    asyncio.run(drive(Held(ground.take()), parts(ground, provider, stream="on", queued_timeout=0.001)))
    assert (ground.status(run), ground.row(run).error_code) == (Status.FAILED, "stuck_in_queue")


@pytest.mark.parametrize(
    ("told", "status"),
    [({"cancel": True}, Status.CANCELLED), ({"stop": True}, Status.IN_PROGRESS)],
    ids=["cancel", "stop"],
)
def test_what_the_engine_says_ends_the_following(ground: Ground, told: dict[str, bool], status: Status) -> None:
    """Expected: a cancel and the end of the worker are heeded at once, and the stream is closed."""
    run, stream = ground.submit(), Stream(silent=True)
    held = Held(ground.take())
    bench = parts(ground, Streaming(stream, STOPPED), stream="on", poll_max=600)
    asyncio.run(drive_and_tell(held, bench, stream.followed, **told))
    assert (ground.status(run), held.handed_over, stream.closed) == (status, held.stopping, 1)


def test_the_time_limit_ends_the_following(ground: Ground) -> None:
    """Expected: the run expires when its own time is over, whatever the stream has still to say."""
    run, stream = ground.submit(timeout=0.3), Stream(silent=True)
    asyncio.run(drive(Held(ground.take()), parts(ground, Streaming(stream, STOPPED), stream="on", poll_max=600)))
    assert (ground.status(run), stream.closed) == (Status.EXPIRED, 1)


@pytest.mark.parametrize(
    ("setting", "config", "followed"), [("off", True, True), ("on", False, False), ("off", None, False)]
)
def test_an_assistant_may_say_otherwise(ground: Ground, setting: str, config: bool | None, followed: bool) -> None:
    """Expected: `stream` of the assistant wins over the setting, which is for those that do not say."""
    ground.assistant_id = ground.write(
        assistants.apply, "other", {"model": "m", **({} if config is None else {"stream": config})}
    )[0].id
    run, stream = ground.submit(), Stream(ANSWER)
    asyncio.run(drive(Held(ground.take()), parts(ground, Streaming(stream, ANSWER), stream=setting)))
    assert (ground.status(run), stream.followed.is_set()) == (Status.COMPLETED, followed)
