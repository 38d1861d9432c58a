"""The gate that each request passes: key, body, counters, faults, and OpenAI's headers on whatever comes out."""

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.responses import Response as Answer
from starlette.routing import Route

from simulator import connections, errors, wire
from simulator.counters import Counters
from simulator.faults import Trouble
from simulator.provider import Provider
from simulator.responses import Response
from simulator.wire import JsonObject

Content = JsonObject | AsyncIterator[bytes]
Handler = Callable[[Provider, Request, JsonObject], Awaitable[Content]]
Late = Callable[[Provider, Request, JsonObject], Any]
RunOf = Callable[[Provider, Request, JsonObject], str | None]
BAD_JSON = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library "
    "correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON. If you have trouble "
    "figuring out how to fix this, please contact us through our help center at help.openai.com.)"
)


def route(
    method: str,
    path: str,
    handler: Handler,
    *,
    run_of: RunOf | None = None,
    late: Late | None = None,
    faulty: bool = False,
    stateful: bool = True,
    metered: bool = False,
) -> Route:
    """Put a handler behind the gate.

    `run_of` tells the client run of a request; `late` does what a create shall do whose client is gone by then. What is
    `faulty` meets the shares of faults, what is `stateful` is unknown to a stateless server, what is `metered` tells
    its own limits.
    """

    async def endpoint(request: Request) -> Answer:
        started = time.perf_counter()
        provider: Provider = request.app.state.provider
        provider.counters.requests += 1
        request.state.limits = {} if metered else wire.unlimited()
        try:
            body = await _admitted(provider, request, stateful=stateful)
            provider.counters.seen(run_of(provider, request, body) if run_of else None)
            request.state.late = functools.partial(late, provider, request, body) if late else None
            befall(provider, request, _fault(provider, request) if faulty else None)
            content = await handler(provider, request, body)
            return connections.answer(request.state.trouble, content, _headers(request, started))
        except connections.Dropped as dropped:
            return await connections.drop(request, provider.counters, dropped.how)
        except errors.ApiError as error:
            provider.counters.rejected[error.name] += 1
            return JSONResponse(error.body, error.status, {**_headers(request, started), **error.headers})

    return Route(f"/v1{path}", endpoint, methods=[method], name=f"{method} {path}")


def _headers(request: Request, started: float) -> dict[str, str]:
    return {**wire.headers(started), **request.state.limits}


async def _admitted(provider: Provider, request: Request, *, stateful: bool) -> JsonObject:
    await connections.outage(request, provider.faults)
    if not request.headers.get("authorization", "").removeprefix("Bearer").strip():
        raise errors.unauthorized()
    if stateful and provider.faults.settings.stateless:
        raise errors.unknown_url(request.method, request.url.path)
    return await _json_body(request)


def _fault(provider: Provider, request: Request) -> Trouble | None:
    fault = provider.faults.gate(create=request.state.late is not None)
    if isinstance(fault, errors.ApiError):
        raise fault
    return fault


def befall(provider: Provider, request: Request, trouble: Trouble | None) -> None:
    """Drop a request before its work is done, or remember what shall happen to its answer."""
    request.state.trouble = trouble
    if trouble is not None and trouble.kind == "late":
        loop = asyncio.get_running_loop()
        loop.call_later(trouble.seconds, _do_late, provider, provider.counters, request.state.late)
        raise connections.Dropped("late")
    if trouble is not None and trouble.kind == "drop before":
        raise connections.Dropped("before")


def _do_late(provider: Provider, counters: Counters, late: Callable[[], Any]) -> None:
    """Do what nobody waits for any more, unless everything was forgotten in between."""
    if provider.counters is not counters:
        return
    try:
        late()
    except errors.ApiError as error:
        counters.rejected[error.name] += 1


async def _json_body(request: Request) -> JsonObject:
    raw = await request.body()
    try:
        body = json.loads(raw) if raw else {}
    except ValueError:
        raise errors.ApiError(400, BAD_JSON, name="bad_json") from None
    if not isinstance(body, dict):
        raise errors.ApiError(400, BAD_JSON, name="bad_json")
    return body


def run_in_metadata(_: Provider, __: Request, body: JsonObject) -> str | None:
    """Return the client run that a body's metadata names."""
    metadata = body.get("metadata")
    run_id = metadata.get("run_id") if isinstance(metadata, dict) else None
    return run_id if isinstance(run_id, str) else None


def limited(provider: Provider, request: Request, body: JsonObject) -> dict[str, str]:
    """Pass the limiter and return its headers; whatever comes of the request then, it has counted."""
    try:
        told = provider.limits.take(request.headers["authorization"], str(body.get("model")), body)
    except errors.ApiError as error:
        request.state.limits = error.headers
        provider.counters.limit_refused += 1
        raise
    provider.counters.limit_granted += 1
    return told


async def until_ended(provider: Provider, request: Request, response: Response) -> None:
    """Wait for a foreground response; a client that goes away stops it."""
    while response.is_active(provider.clock()):
        left = min(response.ends - provider.clock(), 1.0)
        await asyncio.sleep(max(left, 0.0))
        if await request.is_disconnected():
            provider.stop(response)


async def unknown(request: Request, _: Exception) -> JSONResponse:
    """Answer a request for which there is no route."""
    if not request.headers.get("authorization"):
        error = errors.unauthorized()
    else:
        error = errors.unknown_url(request.method, request.url.path)
    return JSONResponse(error.body, error.status, wire.headers(time.perf_counter()))
