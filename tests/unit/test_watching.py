"""A watcher's text: pieces that are doubled, void, late or lost never make it tell anything twice or leave it out."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import fakeredis
import pytest
from structlog.testing import capture_logs

from tests.conformance.ground import Ground
from tests.unit.test_observation import claim
from worker import urls
from worker.broker.outlet import Outlet
from worker.observation import telemetry
from worker.observation.events import Events
from worker.response import Asked, Usage
from worker.settings import Settings
from worker.store import deciding, progress, settling
from worker.store.deciding import Kind
from worker.watching.live import Broadcast, Entry, Live, is_published
from worker.watching.telling import RunEvent
from worker.watching.watcher import Watcher


class Stream(Live):
    """The streams on a server of their own, which can go away."""

    def __init__(self) -> None:
        self._redis = fakeredis.FakeRedis()

    def lose(self) -> None:
        self._redis = urls.redis_client("redis://127.0.0.1:1")


def ended(ground: Ground) -> str:
    """Carry a run to its end, which is the text `done`."""
    run_id, held = ground.submit(), ground.take()
    ground.commit(held, progress.created, 0, "resp_1")
    ground.settle(held)
    return run_id


def text(piece: str, offset: int = 0, *, fence: int = 1, step: int = 0) -> Entry:
    return Entry(fence, "text", 1, step, offset, piece)


def watch(ground: Ground, live: Live | None, run_id: str, after: str | None = None) -> list[RunEvent]:
    return list(Watcher(ground.database, live, run_id, after).events(timeout=10))


def heard(events: list[RunEvent]) -> list[tuple[str | None, int | None, bool]]:
    return [(event.text, event.offset, event.restart) for event in events if event.text]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ([], [("done", 0, False)]),
        ([text("do"), text("ne", 2)], [("do", 0, False), ("ne", 2, False)]),
        ([text("do")], [("do", 0, False), ("ne", 2, False)]),
        ([text("dr"), text("do", fence=2)], [("dr", 0, False), ("do", 0, True), ("ne", 2, False)]),
        ([text("do", fence=2), text("drop"), text("ne", 2, fence=2)], [("do", 0, False), ("ne", 2, False)]),
        ([Entry(2, "claimed"), text("stale"), text("done", fence=2)], [("done", 0, False)]),
        ([text("dr")], [("dr", 0, False), ("done", 0, True)]),
        ([text("ne", 2)], [("ne", 2, False), ("done", 0, True)]),
    ],
    ids=["unheard", "whole", "broken off", "begun anew", "stale between", "lost claim", "said otherwise", "trimmed"],
)
def test_joined_text_is_the_answer(ground: Ground, said: list[Entry], told: list[tuple[str, int, bool]]) -> None:
    """Expected: what is missing comes with the end; what is begun anew says so; a worker that lost the run is mute."""
    run_id, live = ended(ground), Stream()
    live.publish({run_id: said})
    assert heard(watch(ground, live, run_id)) == told


def test_the_text_of_an_earlier_step_stands(ground: Ground) -> None:
    """Expected: what the model said before its calls is not void because the answer is another."""
    run_id, live = ground.submit(), Stream()
    held = ground.take()
    ground.commit(held, progress.created, 0, "resp_1")
    ground.commit(held, progress.need_tools, step=0, calls=(), effects={}, usage=Usage(), last_item=None)
    ground.commit(held, progress.created, 1, "resp_2")
    ground.settle(held)
    live.publish({run_id: [text("let me see"), Entry(1, "requires_action"), text("do", step=1)]})
    assert heard(watch(ground, live, run_id)) == [("let me see", 0, False), ("do", 0, False), ("ne", 2, False)]


def test_redis_that_goes_away_changes_nothing_but_the_pieces(ground: Ground) -> None:
    """Expected: a watcher goes on with the journal; what it was told of the answer before is said to be void."""
    run_id, live = ended(ground), Stream()
    live.publish({run_id: [text("do")]})
    first = next(event for event in watch(ground, live, run_id) if event.text)
    live.lose()
    for gone in (live, None):
        assert heard(watch(ground, gone, run_id)) == [("done", 0, False)]
        assert heard(watch(ground, gone, run_id, first.id))[-1] == ("done", 0, True)


@pytest.mark.parametrize(
    ("question", "answer", "status", "error"),
    [
        ("approval", deciding.deny, "failed", "denied"),
        ("in_doubt", partial(deciding.answer, output="paid"), "completed", None),
    ],
    ids=["denied", "answered"],
)
def test_what_a_person_decides_is_told_as_what_came_of_the_call(
    ground: Ground, question: Kind, answer: Any, status: str, error: str | None
) -> None:
    """Expected: the call that does not run any more has its output, or its error, among the events."""
    run_id, held = ground.submit(), ground.take()
    asked = [Asked("c1", "pay", "{}")]
    ground.commit(held, progress.need_tools, step=0, calls=asked, effects={}, usage=Usage(), last_item=None)
    ground.commit(held, deciding.ask, ["c1"], question, 60.0)
    ground.commit(held, settling.park_until_answer, 60.0)
    with ground.database.write() as connection:
        answer(connection, run_id, "c1", by="ann")
    ground.settle(ground.take())
    told = [event for event in watch(ground, None, run_id) if event.kind in ("question", "output")]
    assert [event.kind for event in told] == ["question", "output"]
    ((call,),) = (event.calls for event in told[1:])
    assert (call["name"], call["status"], call["error"]) == ("pay", status, error)


def test_a_journal_that_was_cleaned_leaves_the_end(ground: Ground) -> None:
    """Expected: the end is told once, from the run's row alone."""
    run_id = ended(ground)
    before = watch(ground, None, run_id)
    with ground.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM runwright_events")
    (end,) = watch(ground, None, run_id)
    assert (end.kind, end.output_text) == ("end", "done")
    assert watch(ground, None, run_id, before[-2].id) == [end_of(end, before[-2].id)]
    assert watch(ground, None, run_id, end.id) == watch(ground, None, run_id, before[-1].id) == []


def end_of(end: RunEvent, after: str) -> RunEvent:
    changes = {name: getattr(end, name) for name in end.__slots__}
    return RunEvent(**{**changes, "id": f"{after}-end"})


@pytest.mark.parametrize(
    ("settings", "config", "batch", "published"),
    [
        ({}, {}, None, False),
        ({}, {"stream": True}, None, True),
        ({}, {"stream": True}, "batch", False),
        ({"RUNWRIGHT_STREAM": "on"}, {}, None, True),
        ({"RUNWRIGHT_STREAM": "on"}, {"stream": False}, None, False),
        ({}, {"backend": "chat"}, None, True),
        ({"RUNWRIGHT_BACKEND": "chat"}, {"stream": False}, None, False),
        ({"RUNWRIGHT_PUBLISH": "all"}, {"stream": True}, "batch", True),
        ({"RUNWRIGHT_PUBLISH": "off"}, {"stream": True}, None, False),
    ],
)
def test_who_is_published(
    settings: dict[str, str], config: dict[str, object], batch: str | None, published: bool
) -> None:
    """Expected: what is streamed, or lives on its connection, and is of no batch, unless a setting says otherwise."""
    assert is_published(claim(config=config, batch_id=batch), Settings.from_env(settings)) is published


def test_pieces_that_come_together_are_one_entry() -> None:
    """Expected: one entry for a bunch of pieces, in its place between the rows, and no word of it in any log."""
    live, outlet, events = Stream(), Outlet(), Events()
    events.subscribe(Broadcast(Settings.from_env({}), live, outlet))
    events.subscribe(telemetry.log_event)
    streamed, silent = claim(config={"stream": True}), claim(config={})
    with capture_logs() as logged:
        events.emit("run.created", claim=streamed, step=0)
        for offset, piece in enumerate("secret"):
            events.emit("run.text", claim=streamed, step=0, offset=offset, text=piece)
        events.emit("run.ended", claim=streamed, status="completed")
        events.emit("run.ended", claim=silent, status="failed")
    outlet.start()
    outlet.stop()
    entries = [entry for _, entry in live.read("run-1", (0, 0), 0.0) or ()]
    assert entries == [Entry(1, "created"), text("secret"), Entry(1, "completed")]
    assert {line["event"] for line in logged} == {"run.ended"}


def test_watchers_that_wait_share_a_thread(ground: Ground) -> None:
    """Expected: beside one that waits for its run, another is told of one that ends, with one thread for both."""
    goes_on, ends = ground.submit("a"), ground.submit("b")

    async def watch(run_id: str, begun: asyncio.Event) -> list[str]:
        told = []
        async for event in Watcher(ground.database, None, run_id).events_async():
            told.append(event.status.value)
            begun.set()
        return told

    async def story() -> list[str]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        begun = asyncio.Event(), asyncio.Event()
        async with asyncio.timeout(20):
            waiting, ending = (asyncio.create_task(watch(*one)) for one in zip((goes_on, ends), begun, strict=True))
            for event in begun:
                await event.wait()
            for claim in ground.claim():
                if claim.run_id == ends:
                    ground.settle(claim)
            told = await ending
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait({waiting})
            return told

    assert asyncio.run(story())[-1] == "completed"
