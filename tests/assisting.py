"""The Assistants backend against a server that a test scripts, and steps as the runner hands them to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from tests.scripted import KEY, Request, Script, answer, scripted
from tools.registry import Tool
from worker.assistants.prices import Prices
from worker.backends.assistants.backend import HEADERS, AssistantsBackend
from worker.backends.base import Step
from worker.backends.transport.connections import Http
from worker.response import Answer

T = TypeVar("T")
RUN = {
    "id": "run_1",
    "object": "thread.run",
    "status": "queued",
    "model": "gpt-4o-mini",
    "metadata": {"run_id": "run-1", "attempt": "1", "step": "0"},
}
NO_RUNS: dict[str, Any] = {"object": "list", "data": [], "has_more": False}
MADE = {"id": "asst_1", "object": "assistant"}


@contextlib.asynccontextmanager
async def assistants_at(url: str, *, limit: float = 5.0, requests: int = 8, **options: Any) -> AsyncIterator[Any]:
    """Return a backend that is closed with the block."""
    http = Http(api_key=KEY, base_url=url, requests=requests, timeout=limit, headers=HEADERS)
    backend = AssistantsBackend(http, Prices.load(), **options)
    try:
        yield backend
    finally:
        await http.close()


def doing(
    config: Mapping[str, Any] | None = None,
    *,
    text: str = "hello",
    tools: Iterable[Tool] = (),
    answers: Iterable[Answer] = (),
    **changes: Any,
) -> Step:
    """Return a step as the runner hands it to a backend."""
    given: dict[str, Any] = {
        "run_id": "run-1",
        "thread_id": "thread-1",
        "attempt": 1,
        "number": 0,
        "conversation": "thread_1",
        "config": {"model": "gpt-4o-mini", **(config or {})},
        "tools": tuple(tools),
        "input": [{"type": "text", "text": text}] if text else (),
        "answers": tuple(answers),
    }
    return Step(**(given | changes))


def page(*data: Any, more: bool = False) -> bytes:
    """Return an answer that is one page of a list."""
    return answer(200, {"object": "list", "data": data, "has_more": more, "last_id": data[-1]["id"] if data else None})


def routes(table: Mapping[str, bytes | list[bytes]]) -> Script:
    """Return the script of a server that answers by method and path; of several answers each is given once.

    What the table does not have is answered as a server does that has one assistant, no message and no run.
    """
    left = {key: list(found) if isinstance(found, list) else found for key, found in table.items()}
    usual = {
        "GET /assistants": page(),
        "POST /assistants": answer(200, MADE),
        "POST /threads/thread_1/runs": answer(200, RUN),
        "GET /threads/thread_1/runs": page(),
        "GET /threads/thread_1/messages": page(),
    }

    async def script(request: Request) -> AsyncIterator[bytes]:
        key = f"{request.method} {request.path.removeprefix('/v1').partition('?')[0]}"
        found = left.get(key, usual.get(key, answer(500, {"error": {"message": f"no route {key}"}})))
        yield found.pop(0) if isinstance(found, list) else found

    return script


def asked(script: Script, call: Callable[[Any], Awaitable[T]], **options: Any) -> tuple[T, list[Request]]:
    """Return what one call of a backend gives with such a server, and the requests that it made."""

    async def story() -> tuple[T, list[Request]]:
        async with scripted(script) as server, assistants_at(server.url, **options) as backend:
            return await call(backend), server.requests

    return asyncio.run(story())
