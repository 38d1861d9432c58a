"""The two foreground dialects before a scripted server, and streams in the words of each."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from tests.scripted import KEY, Script, scripted, step
from worker.assistants.prices import Prices
from worker.backends.base import Created, Ended, Step
from worker.backends.foreground.backend import ForegroundBackend
from worker.backends.foreground.chat import Chat
from worker.backends.foreground.connection import Patience
from worker.backends.foreground.stateless import Stateless
from worker.backends.transport.connections import Http

T = TypeVar("T")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nx-request-id: req_1\r\n\r\n"
DIALECTS = ("chat", "responses-stateless")
ID = {"chat": "chatcmpl-0123456789abcdef", "responses-stateless": "resp_0123456789abcdef"}


def _sent(data: Any, name: str = "") -> bytes:
    named = f"event: {name}\n" if name else ""
    return f"{named}data: {json.dumps(data)}\n\n".encode()


def _response(status: str, text: str | None = None) -> dict[str, Any]:
    item = {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    return {"id": ID["responses-stateless"], "status": status, "output": [] if text is None else [item]}


def begun(dialect: str) -> bytes:
    """Return the head and the first event, from which the model has begun."""
    if dialect == "chat":
        return HEAD + _sent({"id": ID[dialect], "choices": [{"index": 0, "delta": {"role": "assistant"}}]})
    added = {"item": {"type": "message", "id": "msg_1"}}
    return queued(dialect) + _sent(added, "response.output_item.added")


def queued(dialect: str) -> bytes:
    """Return the head and what comes before the model has begun."""
    if dialect == "chat":
        return HEAD + b": still waiting\n\n"
    return HEAD + _sent({"response": _response("in_progress")}, "response.created")


def said(dialect: str) -> bytes:
    """Return a piece of text that is heard."""
    if dialect == "chat":
        return _sent({"id": ID[dialect], "choices": [{"index": 0, "delta": {"content": "well, "}}]})
    return _sent({"delta": "well, "}, "response.output_text.delta")


def hello(dialect: str) -> bytes:
    """Return the rest of a stream that says hello."""
    if dialect == "chat":
        chunk = {"id": ID[dialect], "choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": "stop"}]}
        return _sent(chunk) + b"data: [DONE]\n\n"
    return _sent({"response": _response("completed", "hello")}, "response.completed")


def piece(dialect: str) -> dict[str, Any]:
    """Return the same in one piece."""
    if dialect == "chat":
        message = {"role": "assistant", "content": "hello"}
        return {"id": ID[dialect], "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    return _response("completed", "hello")


@contextlib.asynccontextmanager
async def foreground(
    dialect: str, url: str | None, *, stall: float = 5.0, queue: float = 5.0, streams: int = 1
) -> AsyncIterator[ForegroundBackend]:
    """Return a backend that is closed with the block."""
    http = Http(api_key=KEY, base_url=url, requests=4, timeout=5.0, streams=streams)
    prices = Prices.load()
    backend = ForegroundBackend(
        http, Chat(http.host, prices) if dialect == "chat" else Stateless(prices), Patience(queue, stall)
    )
    try:
        yield backend
    finally:
        await http.close()


def ask(dialect: str, script: Script, call: Callable[[ForegroundBackend], Awaitable[T]], **limits: Any) -> T:
    """Return what one call of a backend gives with such a server."""

    async def story() -> T:
        async with scripted(script) as server, foreground(dialect, server.url, **limits) as backend:
            return await call(backend)

    return asyncio.run(story())


async def taken(backend: ForegroundBackend, one: Step | None = None) -> Created:
    """Create a step as the chain does, in a place that its connection gives back."""
    await backend.slots.acquire()
    kept = False
    try:
        created = await backend.create(one or step())
        kept = created.keeps_slot
    finally:
        if not kept:
            backend.slots.release()
    return created


async def carry(backend: ForegroundBackend) -> Ended:
    """Carry one step to its end."""
    created = await taken(backend)
    assert created.following
    with contextlib.closing(created.following):
        ended = await created.following.ended(10)
        assert ended
        return ended
