"""Chat completions: the route, and which step of which client run a request is."""

from starlette.requests import Request
from starlette.routing import Route

from simulator import chat, chat_streams, connections, streams
from simulator.errors import ApiError
from simulator.gate import Content, befall, limited, route, until_ended
from simulator.provider import Provider
from simulator.wire import JsonObject


def routes() -> list[Route]:
    """Return the routes of this module."""
    return [
        route(
            "POST",
            "/chat/completions",
            create_completion,
            run_of=_run_of,
            late=_create_late,
            faulty=True,
            stateful=False,
            metered=True,
        )
    ]


def step_of(request: Request) -> dict[str, str]:
    """Return run_id, attempt and step of a request from X-Client-Request-Id, where it begins RUN_ID/ATTEMPT/STEP.

    OpenAI takes up to 512 ASCII characters there, of any form, and lets the request fail with 400 else; its words are
    not documented.
    """
    told = request.headers.get("x-client-request-id", "")
    if len(told) > 512 or not told.isascii():
        raise ApiError(400, "Invalid X-Client-Request-Id: expected at most 512 ASCII characters.", name="bad_header")
    parts = told.split("/")
    return dict(zip(("run_id", "attempt", "step"), parts, strict=False)) if len(parts) >= 3 else {}


def _run_of(_: Provider, request: Request, __: JsonObject) -> str | None:
    return step_of(request).get("run_id")


def _create_late(provider: Provider, request: Request, body: JsonObject) -> None:
    provider.accept(chat.asked(provider, body, step_of(request)))


async def create_completion(provider: Provider, request: Request, body: JsonObject) -> Content:
    """POST /chat/completions: as a stream, or when the model has done; a client that goes away stops it."""
    provider.counters.creates += 1
    request.state.limits = limited(provider, request, body)
    asking = chat.asked(provider, body, step_of(request))
    trouble = provider.trouble(asking, "drop before", "drop after", "late", "slow")
    if trouble is not None:
        befall(provider, request, trouble)
    response = provider.accept(asking)
    if body.get("stream"):
        befallen = provider.trouble(asking, "cut", "stall") or provider.faults.stream()
        written = chat_streams.told(response, body, provider.faults.settings.stream_deltas)
        return streams.sent(provider, response, written, befallen, connections.cutter(request))
    await until_ended(provider, request, response)
    return chat.completion(response, body)
