"""A response as a stream of events, in OpenAI's forms and order (recorded), each at its time in the response's walk."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator

from simulator.faults import Trouble
from simulator.hosted import is_hosted
from simulator.provider import Provider
from simulator.responses import Response
from simulator.wire import JsonObject

Told = Iterator[tuple[float, bytes]]
"""Events as bytes, each with its place: -1 the creation, 0 the start, 1 the end of the response."""
CREATED, STARTED, ENDED = -1.0, 0.0, 1.0
_LOOK = 1.0  # seconds between looks whether the response was cancelled meanwhile
_PADDED = 16


def events(response: Response, deltas: int) -> Iterator[tuple[float, JsonObject]]:
    """Yield every event with its place in the walk: -1 the creation, 0 the start, 1 the end, shares between them.

    Of each text and each call's arguments come so many deltas at most.
    """
    for number, (place, event) in enumerate(_walk(response, deltas)):
        yield place, {**event, "sequence_number": number}


def _walk(response: Response, deltas: int) -> Iterator[tuple[float, JsonObject]]:
    background = bool(response.request.get("background"))
    yield CREATED, _told("created", response, "queued" if background else "in_progress")
    if background:
        yield CREATED, _told("queued", response, "queued")
    yield STARTED, _told("in_progress", response, "in_progress")
    pads = (response.request.get("stream_options") or {}).get("include_obfuscation") is not False
    written = [e for at, item in enumerate(response.outcome.output) for e in _item(item, at, deltas, pads)]
    for number, event in enumerate(written, 1):
        yield number / (len(written) + 1), event
    yield ENDED, _told(response.outcome.status, response, response.outcome.status)


def _told(name: str, response: Response, status: str) -> JsonObject:
    return {"type": f"response.{name}", "response": response.shown(status)}


def _item(item: JsonObject, at: int, deltas: int, pads: bool) -> Iterator[JsonObject]:
    """Yield the events of one item of the output, a message or a call."""
    if is_hosted(item):
        yield from _hosted(item, at)
        return
    is_call = item["type"] == "function_call"
    empty: JsonObject = {"arguments": ""} if is_call else {"content": []}
    begun = {**item, **empty, "status": "in_progress"}
    yield {"type": "response.output_item.added", "output_index": at, "item": begun}
    yield from _arguments(item, at, deltas, pads) if is_call else _text(item, at, deltas, pads)
    yield {"type": "response.output_item.done", "output_index": at, "item": item}


def _hosted(item: JsonObject, at: int) -> Iterator[JsonObject]:
    """Yield the events of a call that the provider makes itself."""
    where = {"item_id": item["id"], "output_index": at}
    works = "interpreting" if item["type"].startswith("code") else "searching"
    yield {"type": "response.output_item.added", "output_index": at, "item": {**item, "status": "in_progress"}}
    for status in ("in_progress", works, "completed"):
        yield {"type": f"response.{item['type']}.{status}", **where}
    yield {"type": "response.output_item.done", "output_index": at, "item": item}


def _arguments(item: JsonObject, at: int, deltas: int, pads: bool) -> Iterator[JsonObject]:
    where = {"item_id": item["id"], "output_index": at}
    for piece in pieces(item["arguments"], deltas):
        yield {"type": "response.function_call_arguments.delta", **where, "delta": piece, **pad(piece, pads)}
    told = {"name": item["name"], "arguments": item["arguments"]}
    yield {"type": "response.function_call_arguments.done", **where, **told}


def _text(item: JsonObject, at: int, deltas: int, pads: bool) -> Iterator[JsonObject]:
    (part,) = item["content"]
    where = {"item_id": item["id"], "output_index": at, "content_index": 0}
    yield {"type": "response.content_part.added", **where, "part": {**part, "text": ""}}
    for piece in pieces(part["text"], deltas):
        yield {"type": "response.output_text.delta", **where, "delta": piece, "logprobs": [], **pad(piece, pads)}
    yield {"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **where, "part": part}


def pieces(text: str, count: int) -> Iterator[str]:
    """Cut a text into so many pieces at most; into none where the count is 0."""
    size = max(1, -(-len(text) // count)) if count else 0
    return (text[at : at + size] for at in range(0, len(text) if count else 0, size or 1))


def pad(piece: str, pads: bool) -> JsonObject:
    """Pad a delta, as OpenAI does so that its size on the wire does not tell the text."""
    return {"obfuscation": secrets.token_urlsafe(_PADDED)[len(piece) % _PADDED :]} if pads else {}


def told(response: Response, deltas: int, after: int = -1) -> Told:
    """Yield the events behind the number `after` as they go over the wire, with their places."""
    for place, event in events(response, deltas):
        if event["sequence_number"] > after:
            yield place, f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


async def sent(
    provider: Provider, response: Response, written: Told, trouble: Trouble | None, cut: Callable[[], None]
) -> AsyncIterator[bytes]:
    """Send events as they come due; a cancel ends the stream, for no event says it.

    A trouble, `cut` or `stall`, befalls the stream when so many events are sent. Who leaves the stream of a foreground
    response stops it.
    """
    counters = provider.counters
    counters.streams += 1
    counters.streams_open += 1
    try:
        for count, (place, event) in enumerate(written):
            if trouble is not None and count >= trouble.seconds:
                counters.dropped[f"stream {trouble.kind}"] += 1
                await _befall(trouble, cut)
            await _until(provider, response, place)
            if response.cancelled:
                return
            yield event
    finally:
        counters.streams_open -= 1
        if not response.request.get("background"):
            provider.stop(response)


async def _until(provider: Provider, response: Response, place: float) -> None:
    """Wait until an event is due; when that is may change, and a cancel may come, while we wait."""
    while (left := _due(response, place) - provider.clock()) > 0:
        if response.cancelled:
            return
        await asyncio.sleep(min(left, _LOOK))


def _due(response: Response, place: float) -> float:
    if place <= STARTED:
        return response.starts if place == STARTED else response.created
    return response.starts + place * (response.ends - response.starts)


async def _befall(trouble: Trouble, cut: Callable[[], None]) -> None:
    """Say no more: the connection is cut, or left open until the client goes away."""
    if trouble.kind == "cut":
        cut()
    await asyncio.Event().wait()
