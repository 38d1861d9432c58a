"""Responses, Conversations and models: their routes, and what each of them does."""

from starlette.requests import Request
from starlette.routing import Route

from simulator import connections, errors, streams, wire
from simulator.conversations import Page
from simulator.gate import Content, befall, limited, route, run_in_metadata, until_ended
from simulator.provider import Provider
from simulator.validation import check_metadata
from simulator.wire import JsonObject


def routes() -> list[Route]:
    """Return the routes of this module."""
    return [
        route(
            "POST",
            "/responses",
            create_response,
            run_of=run_in_metadata,
            late=_create_late,
            faulty=True,
            stateful=False,
            metered=True,
        ),
        route("GET", "/responses/{id}", get_response, run_of=_run_of, faulty=True),
        route("DELETE", "/responses/{id}", delete_response, run_of=_run_of),
        route("POST", "/responses/{id}/cancel", cancel_response, run_of=_run_of),
        route("GET", "/responses/{id}/input_items", list_input_items, run_of=_run_of),
        route("POST", "/conversations", create_conversation),
        route("GET", "/conversations/{id}", get_conversation),
        route("POST", "/conversations/{id}", update_conversation),
        route("DELETE", "/conversations/{id}", delete_conversation),
        route("POST", "/conversations/{id}/items", add_items),
        route("GET", "/conversations/{id}/items", list_items),
        route("GET", "/conversations/{id}/items/{item_id}", get_item),
        route("DELETE", "/conversations/{id}/items/{item_id}", delete_item),
        route("GET", "/models", list_models, stateful=False),
        route("GET", "/models/{model}", get_model, stateful=False),
    ]


def _run_of(provider: Provider, request: Request, _: JsonObject) -> str | None:
    return provider.run_of(request.path_params["id"])


def _create_late(provider: Provider, _: Request, body: JsonObject) -> None:
    provider.create_response(body)


async def create_response(provider: Provider, request: Request, body: JsonObject) -> Content:
    """POST /responses: at once in background mode or as a stream, else when the response has ended."""
    provider.counters.creates += 1
    request.state.limits = limited(provider, request, body)
    asking = provider.asked(body)
    trouble = provider.trouble(asking, "drop before", "drop after", "late", "slow")
    if trouble is not None:
        befall(provider, request, trouble)
    response = provider.accept(asking)
    if body.get("stream"):
        befallen = provider.trouble(asking, "cut", "stall") or provider.faults.stream()
        told = streams.told(response, provider.faults.settings.stream_deltas)
        return streams.sent(provider, response, told, befallen, connections.cutter(request))
    if not asking.request.get("background"):
        await until_ended(provider, request, response)
    return response.body(provider.clock())


async def get_response(provider: Provider, request: Request, _: JsonObject) -> Content:
    """GET /responses/{id}: as it is, or its events once more."""
    if request.query_params.get("stream") == "true":
        response = provider.streamed(request.path_params["id"])
        told = streams.told(response, provider.faults.settings.stream_deltas, _starting_after(request))
        return streams.sent(provider, response, told, provider.faults.stream(), connections.cutter(request))
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
