"""An HTTP server that does what a test's script says, down to the bytes, and the backend that speaks to it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from tools.registry import Tool
from worker.assistants.prices import Prices
from worker.backends.base import Step
from worker.backends.responses.backend import ResponsesBackend
from worker.backends.transport.connections import Http
from worker.errors import ProviderError
from worker.response import Answer

KEY = "sk-never-shown-0123456789"
EMPTY = {"id": "resp_1", "object": "response", "status": "completed", "model": "gpt-4o-mini", "output": []}
Call = Callable[[ResponsesBackend], Awaitable[Any]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


# What it yields is sent as it is; where it ends the connection is closed, answered or not.
Script = Callable[[Request], AsyncIterator[bytes]]


@dataclass(slots=True)
class Scripted:
    """A server under way, and the requests that it has got."""

    url: str
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


@contextlib.asynccontextmanager
async def scripted(script: Script, *, keeps: bool = False) -> AsyncIterator[Scripted]:
    """Serve on a free port for as long as the block lasts; one that `keeps` connections waits for more requests."""
    open_now: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            while True:
                request = await _read(reader)
                server.requests.append(request)
                server.arrived.set()
                async for chunk in script(request):
                    writer.write(chunk)
                    await writer.drain()
                if not keeps:
                    break

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        open_now.add(task)
        task.add_done_callback(open_now.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    server = Scripted(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1")
    try:
        yield server
    finally:
        listener.close()
        for task in open_now:
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body)


def answer(status: int, body: Any, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a whole response; a body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"Content-Type": "application/json", "Content-Length": str(len(content)), "Connection": "close"}
    lines |= headers or {}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode("latin-1") + content


def saying(*chunks: bytes) -> Script:
    """Return the script of a server that gives every request this answer."""

    async def script(_: Request) -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return script


@contextlib.asynccontextmanager
async def backend_at(
    url: str, *, limit: float = 5.0, requests: int = 8, streams: int = 1
) -> AsyncIterator[ResponsesBackend]:
    """Return a backend that is closed with the block."""
    http = Http(api_key=KEY, base_url=url, requests=requests, timeout=limit, streams=streams)
    backend = ResponsesBackend(http, Prices.load())
    try:
        yield backend
    finally:
        await http.close()


def ask(script: Script, call: Callable[[ResponsesBackend], Awaitable[T]], *, limit: float = 5.0) -> T:
    """Return what one call of a backend gives with such a server."""

    async def story() -> T:
        async with scripted(script) as server, backend_at(server.url, limit=limit) as backend:
            return await call(backend)

    return asyncio.run(story())


def step(
    config: Mapping[str, Any] | None = None,
    *,
    text: str = "hello",
    tools: Iterable[Tool] = (),
    answers: Iterable[Answer] = (),
) -> Step:
    """Return a step as the runner hands it to a backend."""
    return Step(
        run_id="run-1",
        thread_id="thread-1",
        attempt=1,
        number=0,
        conversation="conv_1",
        config={"model": "gpt-4o-mini", **(config or {})},
        tools=tuple(tools),
        input=[{"type": "text", "text": text}] if text else (),
        answers=tuple(answers),
    )


def completed(**changes: Any) -> Script:
    """Return the script of a server whose response has these properties."""
    return saying(answer(200, {**EMPTY, **changes}))


async def look(backend: ResponsesBackend) -> Any:
    """Look at a response."""
    return await backend.look("resp_1")


def refused(script: Script, call: Call, *, limit: float = 5.0) -> ProviderError:
    """Return the error that a call ends with; anything else that it raises fails the test."""
    with pytest.raises(ProviderError) as caught:
        ask(script, call, limit=limit)
    shown = f"{caught.value} {caught.value.message} {caught.value!r}"
    assert KEY not in shown
    assert "\n" not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return caught.value


def transience(error: ProviderError) -> str:
    """Say in one word what an error means for the run."""
    assert not (error.transient and error.unknown)
    return "unknown" if error.unknown else "transient" if error.transient else "permanent"
