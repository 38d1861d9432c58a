"""A worker claims no more than can be begun soon; a server at which nothing moves keeps it from no other server."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest

from tests.conformance.ground import Ground
from tests.scripted import EMPTY, Request, answer, saying, scripted
from tests.servers import wait_until
from tests.workbench import Provider, parts
from worker import pool
from worker.backends import bounds
from worker.backends.base import Done
from worker.backends.choice import Backends
from worker.backends.places import Place
from worker.backends.transport.connections import Http, Reply
from worker.engine import Engine
from worker.lifecycle import Status
from worker.response import Usage
from worker.store import assistants, progress

CROWD = 4  # what waits for the one place of these servers, and one that has it


@pytest.fixture
def ground(sqlite_url: str) -> Iterator[Ground]:
    """Give a SQLite database with an assistant."""
    ground = Ground(sqlite_url)
    yield ground
    ground.close()


INPUT = [{"type": "text", "text": "hello"}]


async def hang(_: Request) -> AsyncIterator[bytes]:
    """Answer nothing."""
    await asyncio.Event().wait()
    yield b""


def of(url: str) -> dict[str, str]:
    return {"protocol": "responses", "base_url": url}


def test_a_server_that_hangs_stops_no_run_of_another(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: its runs wait for their turn there, and what is due behind them is claimed and completes."""
    monkeypatch.setattr(bounds, "_STUCK", 0.2)

    async def story() -> Status:
        async with scripted(hang) as stuck, scripted(saying(answer(200, EMPTY | {"id": "r_1"}))) as good:
            for name, server in (("stuck", stuck), ("good", good)):
                config = {"model": "m", "backend": of(server.url)}
                ground.assistant_id = ground.write(assistants.apply, name, config)[0].id
                run = [ground.submit(None, input=INPUT) for _ in range(6 * CROWD if name == "stuck" else 1)][-1]
            bench = {"request_limit": 1, "claim_chunk": 4, "idle_poll": 0.1, "tool_grace": 0.1}
            engine = Engine("node", ["default"], lambda: parts(ground, None, **bench), lambda _queues: None)
            engine.start(lambda: None)
            try:
                await asyncio.to_thread(wait_until, lambda: ground.row(run).finished_at, "the end of its run")
            finally:
                assert await asyncio.to_thread(engine.stop, 20)
            return ground.status(run)

    assert asyncio.run(story()) is Status.COMPLETED


def test_a_worker_is_crowded_where_all_its_servers_are(ground: Ground) -> None:
    """Expected: so many that wait at each of two servers, and not at one of them."""

    async def story() -> list[bool]:
        bench = parts(ground, None, request_limit=1)
        bounds = [bench.backends.at(Place("responses", f"http://127.0.0.1:{port}/v1")).slots for port in (1, 2)]
        waiting = []
        found = []
        for bound in bounds:
            waiting += [asyncio.create_task(bound.acquire()) for _ in range(CROWD + 1)]
            await asyncio.sleep(0)
            found.append(bench.backends.crowded)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        await bench.close()
        return [*found, bench.backends.crowded]

    assert asyncio.run(story()) == [False, True, False]


def test_a_database_that_is_behind_stops_looks_and_claims(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: while so many runs wait behind a commit, no look is called and no run is claimed; then all goes on."""
    monkeypatch.setattr(pool, "_CROWD", 2)
    ground.boot()
    runs = [ground.submit(None) for _ in range(3)]
    claims = ground.claim()

    async def story() -> list[bool]:
        bench = parts(ground, None)
        readers, called = bench.backends.at(Place("responses", "http://127.0.0.1:1/v1")).readers, asyncio.Event()
        found, waiting = [], []
        with ground.database.write():
            for claim in claims:
                waiting.append(asyncio.create_task(bench.store.commit(claim, progress.mark_unknown)))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            readers.stand_in_line(called.set)
            readers.call_next()
            found += [bench.backends.crowded, readers.busy, called.is_set()]
        async with asyncio.timeout(10):
            await asyncio.gather(*waiting, called.wait())
        found += [bench.backends.crowded, readers.busy]
        await bench.close()
        return found

    assert len(claims) == len(runs)
    assert asyncio.run(story()) == [True, True, False, False, False]


def test_creates_that_wait_stop_looks_at_their_server(ground: Ground) -> None:
    """Expected: where so many wait to be created, a look there had only to wait with what it finds."""

    async def story() -> list[bool]:
        bench = parts(ground, None, request_limit=2)
        backend = bench.backends.at(Place("responses", "http://127.0.0.1:1/v1"))
        found = [backend.readers.busy]
        waiting = [asyncio.create_task(backend.slots.acquire()) for _ in range(2 * CROWD + 2)]
        await asyncio.sleep(0)
        found.append(backend.readers.busy)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        await bench.close()
        return found

    assert asyncio.run(story()) == [False, True]


def test_a_crowded_worker_claims_nothing(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: it has looked at its crowd many times, and the run is claimed when that is gone, not before."""
    asked: list[Status] = []

    def crowded(_backends: Backends) -> bool:
        asked.append(ground.status(run))
        return len(asked) < 6

    monkeypatch.setattr(Backends, "crowded", property(crowded))
    run = ground.submit(None)
    made = partial(parts, ground, Provider(Done("answer", Usage(), "item_1")))
    engine = Engine("node", ["default"], made, lambda _queues: None)
    engine.start(lambda: None)
    try:
        wait_until(lambda: ground.row(run).finished_at, "its end")
    finally:
        assert engine.stop(20)
    assert asked[:6] == [Status.QUEUED] * 6


def test_looks_leave_places_for_what_is_to_be_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: twice as many looks as requests may be open hold up no request that begins something."""

    async def story() -> bytes:
        http = Http(api_key="k", base_url="http://127.0.0.1:1/v1", requests=4, timeout=5)

        async def send(method: str, _path: str, _content: bytes | None, *, creating: bool) -> Reply:
            assert not creating
            if method == "GET":
                await asyncio.Event().wait()
            return Reply({}, b"begun")

        monkeypatch.setattr(http, "_send", send)
        looks = [asyncio.create_task(http.send("GET", "/responses/r")) for _ in range(8)]
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            reply = await http.send("POST", "/conversations", b"{}")
        for look in looks:
            look.cancel()
        await asyncio.wait(looks)
        await http.close()
        return reply.body

    assert asyncio.run(story()) == b"begun"
