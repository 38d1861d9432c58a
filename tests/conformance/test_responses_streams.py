"""The Responses backend and a server that streams: its end is told at once, and whatever breaks leaves the id."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.test_responses_backend import LOST, PAGE, limit
from tests.scripted import EMPTY, KEY, Request, Script, answer, ask, backend_at, refused, saying, scripted, step
from tests.scripted import transience as meaning_of
from worker.backends.base import Created, Done, Ended, Failed, Following, NeedsTools
from worker.backends.responses.backend import ResponsesBackend
from worker.errors import ProviderError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nx-request-id: req_1\r\n\r\n"
STEP = replace(step(), stream=True)
TEXT = {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "hello"}]}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"}


def event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


def told(status: str, **changes: Any) -> bytes:
    """Return the event that says so of the whole response."""
    name = "created" if status == "queued" else status
    return event(f"response.{name}", response={**EMPTY, "status": status, **changes})


BEGUN = HEAD + told("queued")
DELTAS = event("response.output_text.delta", delta="hel") + event("response.output_text.delta", delta="lo")


async def begin(backend: ResponsesBackend) -> str:
    return (await backend.create(STEP)).id


async def follow(backend: ResponsesBackend) -> tuple[Ended | None, bool]:
    """Create the step as a stream and return how it ended, and whether a look must tell instead."""
    following = followed(await backend.create(STEP))
    with contextlib.closing(following):
        return await following.ended(10), following.broken


def followed(created: Created) -> Following:
    assert (created.id, created.request_id) == ("resp_1", "req_1")
    assert created.following is not None
    return created.following


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (told("completed", output=[TEXT], usage={"input_tokens": 1, "output_tokens": 2}), Done),
        (told("completed", output=[CALL]), NeedsTools),
        (told("incomplete", output=[TEXT], incomplete_details={"reason": "max_output_tokens"}), Done),
        (told("failed", error={"code": "server_error", "message": f"Sorry, {KEY}"}), Failed),
    ],
    ids=["completed", "calls", "incomplete", "failed"],
)
def test_the_last_event_says_what_a_look_would(last: bytes, kind: type[Ended]) -> None:
    """Expected: the same answer from the stream as from GET, whatever came between."""
    ended, broken = ask(saying(BEGUN, told("in_progress"), DELTAS, last), follow)
    whole = json.loads(last.split(b"data: ")[1])["response"]
    assert (type(ended), broken) == (kind, False)
    assert ended == ask(saying(answer(200, whole)), lambda backend: backend.look("resp_1"))


def test_whoever_asks_for_the_text_hears_it() -> None:
    """Expected: each piece as it comes, cleaned of what no database holds, and the same end as without."""
    heard: list[str] = []
    last = told("completed", output=[TEXT])
    pieces = DELTAS + event("response.output_text.delta", delta="\0") + event("response.refusal.delta", delta="no")

    async def hear(backend: ResponsesBackend) -> Ended | None:
        following = followed(await backend.create(replace(STEP, on_text=heard.append)))
        with contextlib.closing(following):
            return await following.ended(10)

    assert ask(saying(BEGUN, pieces, last), hear) == ask(saying(BEGUN, pieces, last), follow)[0]
    assert heard == ["hel", "lo", "\N{REPLACEMENT CHARACTER}"]


def test_the_first_event_may_be_the_last() -> None:
    """Expected: its id and its end are both taken."""
    ended, _ = ask(saying(HEAD + told("completed", output=[TEXT])), follow)
    assert isinstance(ended, Done)
    assert ended.text == "hello"


def test_an_answer_in_one_piece_is_taken_as_one() -> None:
    """Expected: a server that does not stream has created the response all the same, and it is polled."""
    created = ask(saying(answer(200, EMPTY, {"x-request-id": "req_1"})), lambda backend: backend.create(STEP))
    assert created == Created("resp_1", "req_1")


# ── what breaks ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def stall(_: Request) -> AsyncIterator[bytes]:
    yield BEGUN
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("script", "seconds"),
    [
        (saying(BEGUN), 10.0),
        (saying(BEGUN, told("in_progress"), DELTAS[:-20]), 10.0),
        (stall, 0.3),
        (saying(BEGUN, event("error", code="server_error", message="Sorry", param=None)), 10.0),
        (saying(BEGUN, told("completed", output=7)), 10.0),
        (saying(BEGUN, told("completed", output=[CALL, CALL])), 10.0),
        (saying(BEGUN, event("response.completed", response={**EMPTY, "status": "in_progress"})), 10.0),
        (saying(BEGUN, b"event: response.completed\ndata: {]\n\n"), 10.0),
        (saying(BEGUN.replace(b"\r\n\r\n", b"\r\nContent-Length: 100000\r\n\r\n", 1)), 10.0),
    ],
    ids=["ends", "in the middle", "stalls", "error", "no body", "same call", "no end", "no JSON", "cut"],
)
def test_a_stream_that_breaks_leaves_the_rest_to_looks(script: Script, seconds: float) -> None:
    """Expected: the id is known, and no end is made up."""
    assert ask(script, follow, limit=seconds) == (None, True)


def test_a_stream_that_is_only_slow_is_not_broken() -> None:
    """Expected: the time passes, and the end is told to who asks once more."""
    go_on = asyncio.Event()

    async def script(_: Request) -> AsyncIterator[bytes]:
        yield BEGUN + DELTAS[:-20]
        await go_on.wait()
        yield DELTAS[-20:] + told("completed", output=[TEXT])

    async def story(backend: ResponsesBackend) -> tuple[Ended | None, bool, Ended | None]:
        following = followed(await backend.create(STEP))
        first = await following.ended(0.05), following.broken
        go_on.set()
        return *first, await following.ended(10)

    nothing, broken, ended = ask(script, story)
    assert (nothing, broken, type(ended)) == (None, False, Done)


# ── a create without its first event ──────────────────────────────────────────────────────────────────────────────────


async def silent(_: Request) -> AsyncIterator[bytes]:
    yield HEAD
    await asyncio.Event().wait()


async def murmuring(_: Request) -> AsyncIterator[bytes]:
    yield HEAD
    while True:
        yield b": nothing yet\n\n"
        await asyncio.sleep(0.02)


FALSE_STARTS: dict[str, Script] = {
    "nothing": saying(HEAD),
    "silence": silent,
    "comments": murmuring,
    "half an event": saying(BEGUN[:-1]),
    "an error": saying(HEAD, event("error", code="rate_limit_exceeded", message=f"no {KEY}", param=None)),
    "an error in an error": saying(HEAD, event("error", error={"code": "server_error", "message": "no"})),
    "an error of no form": saying(HEAD, b"event: error\ndata: no\n\n"),
    "no id": saying(HEAD, event("response.created", response={"status": "queued"})),
    "no response": saying(HEAD, event("response.created")),
    "no JSON": saying(HEAD, b"event: response.created\ndata: {]\n\n"),
    "deltas": saying(HEAD, DELTAS),
}


@pytest.mark.parametrize("name", [*LOST, *FALSE_STARTS])
def test_without_its_first_event_a_create_is_unknown(name: str) -> None:
    """Expected: as with every other create whose answer is lost, nobody can tell whether it began work."""
    script = {**LOST, **FALSE_STARTS}[name]
    seconds = 0.3 if script in {silent, murmuring} else limit(script)
    assert meaning_of(refused(script, begin, limit=seconds)) == "unknown"


@pytest.mark.parametrize(
    ("script", "meaning"),
    [
        (saying(answer(400, {"error": {"code": "invalid_value", "message": "no"}})), "permanent"),
        (saying(answer(400, {"error": {"code": "conversation_locked", "message": "busy"}})), "transient"),
        (saying(answer(429, {"error": {"message": "slowly"}}, {"Retry-After": "7"})), "transient"),
        (saying(answer(503, PAGE)), "transient"),
        (saying(answer(504, PAGE)), "unknown"),
    ],
)
def test_a_rejection_means_what_it_always_means(script: Script, meaning: str) -> None:
    """Expected: a status that says no is no stream that broke."""
    error = refused(script, begin)
    assert meaning_of(error) == meaning
    assert error.retry_after == (7.0 if "slowly" in error.message else None)


# ── places ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def asked_to_stream(request: Request) -> bool:
    return "stream" in json.loads(request.body)


async def open_or_whole(request: Request) -> AsyncIterator[bytes]:
    yield BEGUN if asked_to_stream(request) else answer(200, EMPTY)
    await asyncio.Event().wait()


Story = Callable[[ResponsesBackend], Awaitable[list[Created]]]


async def together(backend: ResponsesBackend) -> list[Created]:
    return await asyncio.gather(*[backend.create(STEP) for _ in range(3)])


async def in_turn(backend: ResponsesBackend) -> list[Created]:
    made = []
    for _ in range(3):
        made.append(await backend.create(STEP))
        if made[-1].following:
            made[-1].following.close()
    return made


@pytest.mark.parametrize(
    ("story", "streams", "followed"),
    [(together, 2, [True, True, False]), (together, 0, [False] * 3), (in_turn, 1, [True] * 3)],
)
def test_a_step_without_a_place_is_created_without_a_stream(story: Story, streams: int, followed: list[bool]) -> None:
    """Expected: never more streams than places, whoever comes at once; a closed one frees its place."""

    async def run() -> tuple[list[bool], list[bool]]:
        async with scripted(open_or_whole) as server, backend_at(server.url, streams=streams) as backend:
            made = await story(backend)
            return [one.following is not None for one in made], [*map(asked_to_stream, server.requests)]

    assert asyncio.run(run()) == (followed, followed)


def test_a_create_that_failed_gives_its_place_back() -> None:
    """Expected: after each kind of failure the next create is a stream again."""

    async def run() -> None:
        scripts = [saying(), FALSE_STARTS["an error"], FALSE_STARTS["no id"], saying(answer(400, EMPTY)), stall]

        async def script(request: Request) -> AsyncIterator[bytes]:
            assert asked_to_stream(request)
            async for chunk in scripts.pop(0)(request):
                yield chunk

        async with scripted(script) as server, backend_at(server.url) as backend:
            for _ in range(4):
                with pytest.raises(ProviderError):
                    await backend.create(STEP)
            followed(await backend.create(STEP)).close()

    asyncio.run(run())


def test_a_closed_stream_closes_its_connection() -> None:
    """Expected: the server sees its client leave, as when a worker hands a run over."""
    left = asyncio.Event()

    async def script(_: Request) -> AsyncIterator[bytes]:
        try:
            yield BEGUN
            while True:
                yield DELTAS
                await asyncio.sleep(0.01)
        finally:
            left.set()

    async def story(backend: ResponsesBackend) -> None:
        followed(await backend.create(STEP)).close()
        await asyncio.wait_for(left.wait(), 10)

    ask(script, story)
