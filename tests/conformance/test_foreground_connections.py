"""Connections that foreground steps live on: one that is read to its close serves the next step; none sends twice."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.foreground import DIALECTS, HEAD, begun, foreground, hello, said, taken
from tests.scripted import Request, scripted, step, transience
from worker.backends.base import Done, Ended
from worker.backends.foreground.backend import ForegroundBackend
from worker.errors import ProviderError

pytestmark = pytest.mark.parametrize("dialect", DIALECTS)

CHUNKED = HEAD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
CLOSES, STAYS_OPEN, DROPS = b"0\r\n\r\n", b"", None


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def carried(dialect: str, *behind: bytes | None) -> tuple[list[Ended | ProviderError | None], int, int]:
    """Carry a step for each of what comes behind its end, and return how they ended, the requests and connections.

    What comes behind the end is sent when the client has read the end, as over a network.
    """
    read = asyncio.Event()
    left = list(behind)

    async def script(_: Request) -> AsyncIterator[bytes]:
        last = left.pop(0)
        if last is DROPS:
            raise ConnectionResetError
        yield CHUNKED + chunk(begun(dialect).removeprefix(HEAD))
        yield chunk(said(dialect) + hello(dialect))
        await read.wait()
        read.clear()
        yield last
        if last == STAYS_OPEN:
            await asyncio.Event().wait()

    async def carry(backend: ForegroundBackend) -> Ended | ProviderError | None:
        try:
            created = await taken(backend, replace(step(), on_text=lambda _text: read.set()))
        except ProviderError as error:
            return error
        assert created.following
        try:
            return await created.following.ended(10)
        finally:
            created.following.close()

    async def story() -> tuple[list[Ended | ProviderError | None], int, int]:
        async with scripted(script, keeps=True) as server, foreground(dialect, server.url) as backend:
            ends = [await asyncio.wait_for(carry(backend), 5) for _ in behind]
            return ends, len(server.requests), server.connections

    return asyncio.run(story())


def test_a_connection_that_the_server_closes_well_serves_the_next_step(dialect: str) -> None:
    """Expected: one connection for three steps, although each close comes behind the end that was read."""
    ends, requests, connections = carried(dialect, CLOSES, CLOSES, CLOSES)
    assert ([type(end) for end in ends], requests, connections) == ([Done] * 3, 3, 1)


def test_a_server_that_leaves_its_stream_open_holds_nothing_up(dialect: str) -> None:
    """Expected: the end is told all the same, and the next step gets a connection of its own."""
    ends, requests, connections = carried(dialect, STAYS_OPEN, STAYS_OPEN)
    assert ([type(end) for end in ends], requests, connections) == ([Done] * 2, 2, 2)


def test_a_kept_connection_that_breaks_is_not_tried_again(dialect: str) -> None:
    """Expected: the request went out once, and nobody can tell what came of it."""
    (first, error), requests, connections = carried(dialect, CLOSES, DROPS)
    assert (type(first), requests, connections) == (Done, 2, 1)
    assert isinstance(error, ProviderError)
    assert transience(error) == "unknown"
