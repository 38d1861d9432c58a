"""Assistants v2: the routes of assistants, threads and messages."""

from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from simulator import threads_validation as rules
from simulator.conversations import Page
from simulator.errors import invalid
from simulator.gate import Content, Handler, route
from simulator.provider import Provider
from simulator.threads import Threads
from simulator.threads_wire import deleted
from simulator.wire import JsonObject


def routes() -> list[Route]:
    """Return the routes of this module."""
    return [
        beta_route("POST", "/assistants", create_assistant),
        beta_route("GET", "/assistants", list_assistants),
        beta_route("GET", "/assistants/{id}", get_assistant),
        beta_route("POST", "/assistants/{id}", update_assistant),
        beta_route("DELETE", "/assistants/{id}", delete_assistant),
        beta_route("POST", "/threads", create_thread),
        beta_route("GET", "/threads/{id}", get_thread),
        beta_route("POST", "/threads/{id}", update_thread),
        beta_route("DELETE", "/threads/{id}", delete_thread),
        beta_route("POST", "/threads/{id}/messages", create_message),
        beta_route("GET", "/threads/{id}/messages", list_messages, run_of=_run_of_query),
        beta_route("GET", "/threads/{id}/messages/{message_id}", get_message),
        beta_route("POST", "/threads/{id}/messages/{message_id}", update_message),
        beta_route("DELETE", "/threads/{id}/messages/{message_id}", delete_message),
    ]


def beta_route(method: str, path: str, handler: Handler, **options: Any) -> Route:
    """Return a route that needs the header of Assistants v2; the options are those of the gate."""

    async def checked(provider: Provider, request: Request, body: JsonObject) -> Content:
        if "assistants=v2" not in request.headers.get("openai-beta", ""):
            raise rules.no_beta()
        return await handler(provider, request, body)

    return route(method, path, checked, **options)


def threads_of(request: Request) -> Threads:
    """Return the threads of the simulator that a request goes to."""
    threads: Threads = request.app.state.threads
    return threads


def page(request: Request, items: list[JsonObject], what: str) -> JsonObject:
    """Return the page of a list that a request asks for."""
    query = dict(request.query_params)
    if "before" in query:
        raise invalid("before", "The simulator pages forward only: 'before' is not supported.")
    return Page.of(query).cut(items, lambda ident: rules.not_found(what, ident))


def _run_of_query(_: Provider, request: Request, __: JsonObject) -> str | None:
    return threads_of(request).run_of(request.query_params.get("run_id", ""))


def _id(request: Request) -> str:
    ident: str = request.path_params["id"]
    return ident


async def create_assistant(_: Provider, request: Request, body: JsonObject) -> JsonObject:
    """POST /assistants."""
    return threads_of(request).create_assistant(body)


async def list_assistants(_: Provider, request: Request, __: JsonObject) -> JsonObject:
    """GET /assistants."""
    return page(request, list(threads_of(request).assistants.values()), "assistant")


async def get_assistant(_: Provider, request: Request, __: JsonObject) -> JsonObject:
    """GET /assistants/{id}."""
    return threads_of(request).assistant(_id(request))


async def update_assistant(_: Provider, request: Request, body: JsonObject) -> JsonObject:
    """POST /assistants/{id}."""
    return threads_of(request).update_assistant(_id(request), body)


async def delete_assistant(_: Provider, request: Request, __: JsonObject) -> JsonObject:
    """DELETE /assistants/{id}."""
    threads = threads_of(request)
    del threads.assistants[threads.assistant(_id(request))["id"]]
    return deleted(_id(request), "assistant")


async def create_thread(_: Provider, request: Request, body: JsonObject) -> JsonObject:
    """POST /threads."""
    return threads_of(request).create_thread(body).body()


async def get_thread(_: Provider, request: Request, __: JsonObject) -> JsonObject:
    """GET /threads/{id}."""
    return threads_of(request).thread(_id(request)).body()


async def update_thread(_: Provider, request: Request, body: JsonObject) -> JsonObject:
    """POST /threads/{id}: its metadata and tool resources."""
    thread = threads_of(request).thread(_id(request))
    rules.check(body, {name: rules.THREAD[name] for name in ("metadata", "tool_resources")})
    thread.metadata = thread.metadata if body.get("metadata") is None else body["metadata"]
    thread.tool_resources = body.get("tool_resources") or thread.tool_resources
    return thread.body()


async def delete_thread(_: Provider, request: Request, __: JsonObject) -> JsonObject:
    """DELETE /threads/{id}."""
    threads_of(request).delete_thread(_id(request))
    return deleted(_id(request), "thread")


async def create_message(_: Provider, request: Request, body: JsonObject) -> JsonObject:
    """POST /threads/{id}/messages."""
    return threads_of(request).add_message(_id(request), body)


async def list_messages(_: Provider, request: Request, __: JsonObject) -> JsonObject:
    """GET /threads/{id}/messages: newest first unless order=asc, of one run if asked for."""
    run_id, messages = request.query_params.get("run_id"), threads_of(request).thread(_id(request)).messages
    return page(request, [one for one in messages.values() if run_id in (None, one["run_id"])], "message")


async def get_message(_: Provider, request: Request, __: JsonObject) -> JsonObject:
    """GET /threads/{id}/messages/{message_id}."""
    return threads_of(request).message(_id(request), request.path_params["message_id"])


async def update_message(_: Provider, request: Request, body: JsonObject) -> JsonObject:
    """POST /threads/{id}/messages/{message_id}: its metadata."""
    message = threads_of(request).message(_id(request), request.path_params["message_id"])
    rules.check(body, rules.METADATA)
    message["metadata"] = body.get("metadata") or {}
    return message


async def delete_message(_: Provider, request: Request, __: JsonObject) -> JsonObject:
    """DELETE /threads/{id}/messages/{message_id}."""
    threads, ident = threads_of(request), request.path_params["message_id"]
    del threads.thread(_id(request)).messages[threads.message(_id(request), ident)["id"]]
    return deleted(ident, "thread.message")
