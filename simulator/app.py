"""The ASGI application: every route, and the gate that each request passes."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.responses import Response as Answer
from starlette.routing import Route

from simulator import connections, control, errors, streams, wire
from simulator.conversations import Page
from simulator.counters import Counters
from simulator.faults import Faults, FaultSettings, Trouble
from simulator.provider import Provider
from simulator.responses import Response
from simulator.validation import check_metadata
from simulator.wire import JsonObject

Content = JsonObject | AsyncIterator[bytes]
Handler = Callable[[Provider, Request, JsonObject], Awaitable[Content]]
BAD_JSON = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library "
    "correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON. If you have trouble "
    "figuring out how to fix this, please contact us through our help center at help.openai.com.)"
)


def create_app(options: FaultSettings | None = None) -> Starlette:
    """Return a simulator of its own, with nothing in it."""
    provider = Provider(Faults(options or FaultSettings()))
    app = Starlette(routes=[*_api_routes(), *control.routes()], exception_handlers={404: _unknown, 405: _unknown})
    app.state.provider = provider
    return app


def _api_routes() -> list[Route]:
    return [
        _route("POST", "/responses", create_response, faulty=True),
        _route("GET", "/responses/{id}", get_response, faulty=True),
        _route("DELETE", "/responses/{id}", delete_response),
        _route("POST", "/responses/{id}/cancel", cancel_response),
        _route("GET", "/responses/{id}/input_items", list_input_items),
        _route("POST", "/conversations", create_conversation),
        _route("GET", "/conversations/{id}", get_conversation),
        _route("POST", "/conversations/{id}", update_conversation),
        _route("DELETE", "/conversations/{id}", delete_conversation),
        _route("POST", "/conversations/{id}/items", add_items),
        _route("GET", "/conversations/{id}/items", list_items),
        _route("GET", "/conversations/{id}/items/{item_id}", get_item),
        _route("DELETE", "/conversations/{id}/items/{item_id}", delete_item),
        _route("GET", "/models", list_models),
        _route("GET", "/models/{model}", get_model),
    ]


def _route(method: str, path: str, handler: Handler, *, faulty: bool = False) -> Route:
    """Put a handler behind the gate: key, body, counters, faults, and OpenAI's headers on whatever comes out."""

    async def endpoint(request: Request) -> Answer:
        started = time.perf_counter()
        provider: Provider = request.app.state.provider
        provider.counters.requests += 1
        request.state.limits = {} if (method, path) == ("POST", "/responses") else wire.unlimited()
        try:
            body = await _admitted(provider, request, faulty=faulty)
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


async def _admitted(provider: Provider, request: Request, *, faulty: bool) -> JsonObject:
    await connections.outage(request, provider.faults)
    if not request.headers.get("authorization", "").removeprefix("Bearer").strip():
        raise errors.unauthorized()
    body = await _json_body(request)
    provider.counters.seen(_run_of(provider, request, body))
    fault = provider.faults.gate(create=request.method == "POST") if faulty else None
    if isinstance(fault, errors.ApiError):
        raise fault
    _befall(provider, request, body, fault)
    return body


def _befall(provider: Provider, request: Request, body: JsonObject, trouble: Trouble | None) -> None:
    """Drop a request before its work is done, or remember what shall happen to its answer."""
    request.state.trouble = trouble
    if trouble is not None and trouble.kind == "late":
        asyncio.get_running_loop().call_later(trouble.seconds, _create_late, provider, provider.counters, body)
        raise connections.Dropped("late")
    if trouble is not None and trouble.kind == "drop before":
        raise connections.Dropped("before")


def _create_late(provider: Provider, counters: Counters, body: JsonObject) -> None:
    """Create what nobody waits for any more, unless everything was forgotten in between."""
    if provider.counters is not counters:
        return
    try:
        provider.create_response(body)
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


def _run_of(provider: Provider, request: Request, body: JsonObject) -> str | None:
    if request.url.path == "/v1/responses":
        metadata = body.get("metadata")
        run_id = metadata.get("run_id") if isinstance(metadata, dict) else None
        return run_id if isinstance(run_id, str) else None
    return provider.run_of(request.path_params.get("id", ""))


async def _unknown(request: Request, _: Exception) -> JSONResponse:
    if not request.headers.get("authorization"):
        error = errors.unauthorized()
    else:
        error = errors.unknown_url(request.method, request.url.path)
    return JSONResponse(error.body, error.status, wire.headers(time.perf_counter()))


async def create_response(provider: Provider, request: Request, body: JsonObject) -> Content:
    """POST /responses: at once in background mode or as a stream, else when the response has ended."""
    provider.counters.creates += 1
    request.state.limits = _limited(provider, request, body)
    asking = provider.asked(body)
    trouble = provider.trouble(asking, "drop before", "drop after", "late", "slow")
    if trouble is not None:
        _befall(provider, request, body, trouble)
    response = provider.accept(asking)
    if body.get("stream"):
        befallen = provider.trouble(asking, "cut", "stall") or provider.faults.stream()
        return streams.sent(provider, response, -1, befallen, connections.cutter(request))
    if not body.get("background"):
        await _until_ended(provider, request, response)
    return response.body(provider.clock())


def _limited(provider: Provider, request: Request, body: JsonObject) -> dict[str, str]:
    """Pass the limiter and return its headers; whatever comes of the request then, it has counted."""
    try:
        told = provider.limits.take(request.headers["authorization"], str(body.get("model")), body)
    except errors.ApiError as error:
        request.state.limits = error.headers
        provider.counters.limit_refused += 1
        raise
    provider.counters.limit_granted += 1
    return told


async def _until_ended(provider: Provider, request: Request, response: Response) -> None:
    """Wait for a foreground response; a client that goes away stops it."""
    while response.is_active(provider.clock()):
        left = min(response.ends - provider.clock(), 1.0)
        await asyncio.sleep(max(left, 0.0))
        if await request.is_disconnected():
            provider.stop(response)


async def get_response(provider: Provider, request: Request, _: JsonObject) -> Content:
    """GET /responses/{id}: as it is, or its events once more."""
    if request.query_params.get("stream") == "true":
        response, after = provider.streamed(request.path_params["id"]), _starting_after(request)
        return streams.sent(provider, response, after, provider.faults.stream(), connections.cutter(request))
    return provider.response(request.path_params["id"]).body(provider.clock())


def _starting_after(request: Request) -> int:
    given = request.query_params.get("starting_after", "-1")
    try:
        return int(given)
    except ValueError:
        raise errors.invalid("starting_after", "Invalid type for 'starting_after': expected an integer.") from None


async def delete_response(provider: Provider, request: Request, _: JsonObject) -> JsonObject:
    """DELETE /responses/{id}."""
    return provider.delete_response(request.path_params["id"])


async def cancel_response(provider: Provider, request: Request, _: JsonObject) -> JsonObject:
    """POST /responses/{id}/cancel."""
    return provider.cancel_response(request.path_params["id"]).body(provider.clock())


async def list_input_items(provider: Provider, request: Request, _: JsonObject) -> JsonObject:
    """GET /responses/{id}/input_items."""
    items = provider.response(request.path_params["id"]).inputs
    return Page.of(dict(request.query_params)).cut(items)


async def create_conversation(provider: Provider, _: Request, body: JsonObject) -> JsonObject:
    """POST /conversations."""
    return provider.create_conversation(body).body()


async def get_conversation(provider: Provider, request: Request, _: JsonObject) -> JsonObject:
    """GET /conversations/{id}."""
    return provider.conversation(request.path_params["id"]).body()


async def update_conversation(provider: Provider, request: Request, body: JsonObject) -> JsonObject:
    """POST /conversations/{id}: its metadata."""
    conversation = provider.conversation(request.path_params["id"])
    check_metadata(body.get("metadata"))
    conversation.metadata = body.get("metadata") or {}
    return conversation.body()


async def delete_conversation(provider: Provider, request: Request, _: JsonObject) -> JsonObject:
    """DELETE /conversations/{id}."""
    ident = provider.conversation(request.path_params["id"]).id
    del provider.conversations[ident]
    return {"id": ident, "object": "conversation.deleted", "deleted": True}


async def add_items(provider: Provider, request: Request, body: JsonObject) -> JsonObject:
    """POST /conversations/{id}/items."""
    return wire.item_list(provider.add_items(request.path_params["id"], body.get("items")), has_more=False)


async def list_items(provider: Provider, request: Request, _: JsonObject) -> JsonObject:
    """GET /conversations/{id}/items: newest first unless order=asc."""
    items = list(provider.conversation(request.path_params["id"]).items.values())
    return Page.of(dict(request.query_params)).cut(items)


async def get_item(provider: Provider, request: Request, _: JsonObject) -> JsonObject:
    """GET /conversations/{id}/items/{item_id}."""
    return provider.item(request.path_params["id"], request.path_params["item_id"])


async def delete_item(provider: Provider, request: Request, _: JsonObject) -> JsonObject:
    """DELETE /conversations/{id}/items/{item_id}: answers with the conversation."""
    ident = request.path_params["id"]
    item = provider.item(ident, request.path_params["item_id"])
    conversation = provider.conversation(ident)
    del conversation.items[item["id"]]
    return conversation.body()


async def list_models(_: Provider, __: Request, ___: JsonObject) -> JsonObject:
    """GET /models."""
    return {"object": "list", "data": [wire.model_object(name) for name in wire.MODELS]}


async def get_model(_: Provider, request: Request, __: JsonObject) -> JsonObject:
    """GET /models/{model}."""
    name = request.path_params["model"]
    if name not in wire.MODELS:
        raise errors.ApiError(404, f"The model '{name}' does not exist", code="model_not_found", param="model")
    return wire.model_object(name)
