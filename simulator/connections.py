"""What happens to a connection: cut without an answer, left without one, answered drop by drop."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from simulator import errors
from simulator.counters import Counters
from simulator.faults import Faults, Trouble
from simulator.wire import JsonObject

_CUT = "simulator.cut"
_PIECES = 20
App = Callable[[Any, Any, Any], Awaitable[None]]


class Connection(H11Protocol):
    """HTTP as uvicorn speaks it; the scope also holds a function that cuts the connection: ASGI itself has none."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the application of this connection the function that cuts it."""
        super().connection_made(transport)
        self.app = _with_cut(cast("App", self.app), transport.abort)


def _with_cut(app: App, cut: Callable[[], None]) -> Any:
    async def called(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, _CUT: cut}, receive, send)

    return called


class Dropped(Exception):
    """The client gets no answer; `how` is what the counters call it."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


async def drop(request: Request, counters: Counters, how: str) -> Response:
    """Cut the connection; what is returned reaches nobody."""
    counters.dropped[how] += 1
    cutter(request)()
    # uvicorn answers 500 for an application that returns before it has noticed that the connection is gone.
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return Response()


async def outage(request: Request, faults: Faults) -> None:
    """Let no request through while there is an outage; one that hangs is dropped when the outage ends."""
    mode = faults.settings.outage
    if mode == "off":
        return
    if mode == "503":
        raise errors.overloaded()
    while mode == faults.settings.outage == "hang":
        await asyncio.sleep(0.1)
        if await request.is_disconnected():
            break
    raise Dropped("outage")


def cutter(request: Request) -> Callable[[], None]:
    """Return the function that cuts the connection of this request."""
    return cast("Callable[[], None]", request.scope[_CUT])


def answer(trouble: Trouble | None, content: JsonObject | AsyncIterator[bytes], headers: dict[str, str]) -> Response:
    """Return the answer to a request whose work is done, or raise Dropped."""
    if trouble is not None and trouble.kind == "drop after":
        raise Dropped("after")
    if isinstance(content, AsyncIterator):
        events = content if trouble is None else _reluctantly(content, trouble.seconds)
        return StreamingResponse(events, headers={**headers, "content-type": "text/event-stream; charset=utf-8"})
    if trouble is None:
        return JSONResponse(content, headers=headers)
    body = json.dumps(content).encode()
    length = {"content-type": "application/json", "content-length": str(len(body))}
    return StreamingResponse(_trickle(body, trouble.seconds), headers={**headers, **length})


async def _reluctantly(events: AsyncIterator[bytes], seconds: float) -> AsyncIterator[bytes]:
    """Let the first event of a stream trickle in."""
    async for piece in _trickle(await anext(events), seconds):
        yield piece
    async for event in events:
        yield event


async def _trickle(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    size = len(body) // _PIECES + 1
    for at in range(0, len(body), size):
        await asyncio.sleep(seconds / _PIECES)
        yield body[at : at + size]
