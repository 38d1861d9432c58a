"""The Responses backend against a server that rejects, lies, drops and hangs."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.scripted import (
    EMPTY,
    KEY,
    Call,
    Request,
    Script,
    answer,
    ask,
    backend_at,
    completed,
    look,
    refused,
    saying,
    scripted,
    step,
    transience,
)
from worker.backends.responses.backend import ResponsesBackend
from worker.backends.transport import connections
from worker.backends.transport.connections import Http
from worker.errors import ProviderError, SettingsError

PAGE = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


async def create(backend: ResponsesBackend) -> str:
    return (await backend.create(step())).id


async def open_conversation(backend: ResponsesBackend) -> str:
    return (await backend.open_conversation("thread-1")).id


async def cancel(backend: ResponsesBackend) -> None:
    await backend.cancel("resp_1")


# ── what a lost answer means ──────────────────────────────────────────────────────────────────────────────────────────


async def hang(_: Request) -> AsyncIterator[bytes]:
    yield b""
    await asyncio.Event().wait()


async def trickle(_: Request) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    while True:
        yield b" "
        await asyncio.sleep(0.02)


LOST = {
    "dropped": saying(),
    "hangs": hang,
    "trickles": trickle,
    "truncated": saying(answer(200, EMPTY, {"Content-Length": "100000"})),
    "truncated rejection": saying(answer(400, EMPTY, {"Content-Length": "100000"})),
    "not HTTP": saying(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "broken gzip": saying(answer(200, b"not gzip", {"Content-Encoding": "gzip"})),
    "charset that cannot decode": saying(answer(200, PAGE, {"Content-Type": "text/html; charset=undefined"})),
    "page": saying(answer(200, PAGE, {"Content-Type": "text/html"})),
    "page called JSON": saying(answer(200, PAGE)),
    "no content": saying(answer(200, b"")),
    "half of the JSON": saying(answer(200, json.dumps(EMPTY).encode()[:-30])),
    "deep JSON": saying(answer(200, b"[" * 100_000)),
    "wrong bytes": saying(answer(200, b'{"id": "\xff"}')),
    "a number": saying(answer(200, 1)),
    "null": saying(answer(200, None)),
    "error with 200": saying(answer(200, {"error": {"code": 502, "message": "Provider returned error"}})),
    "id null": completed(id=None),
    "id empty": completed(id=""),
    "id a number": completed(id=7),
    "id too long": completed(id="r" * 201),
    "id a path": completed(id="../files"),
    "id with NUL": completed(id="resp\x00"),
}


def limit(script: Script) -> float:
    """Return the seconds that a request may take: few only where they have to run out."""
    return 0.3 if script in {hang, trickle} else 10.0


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize(
    ("call", "meaning"), [(create, "unknown"), (look, "transient"), (open_conversation, "transient")]
)
def test_a_lost_answer(name: str, call: Call, meaning: str) -> None:
    """Nobody can tell whether a create began work; everything else may be asked again."""
    assert transience(refused(LOST[name], call, limit=limit(LOST[name]))) == meaning


@pytest.mark.parametrize("call", [create, look, open_conversation, cancel])
def test_a_refused_connection(call: Call) -> None:
    """Nothing was sent, so nothing was created: it may be tried again."""

    async def story() -> None:
        async with scripted(saying()) as server:
            url = server.url
        async with backend_at(url) as backend:
            await call(backend)

    with pytest.raises(ProviderError) as caught:
        asyncio.run(story())
    assert (transience(caught.value), caught.value.code) == ("transient", "connection_error")
    assert "ClientConnectorError" in caught.value.message


# ── what an explicit rejection means ──────────────────────────────────────────────────────────────────────────────────


def rejection(status: int, code: str | None, headers: dict[str, str] | None = None) -> Script:
    error = {"message": f"No: {KEY}", "type": "x", "param": None, "code": code}
    return saying(answer(status, {"error": error}, headers))


@pytest.mark.parametrize("call", [create, look])
@pytest.mark.parametrize(
    ("status", "code", "meaning"),
    [
        (400, "conversation_locked", "transient"),
        (400, "invalid_value", "permanent"),
        (401, "invalid_api_key", "permanent"),
        (403, None, "permanent"),
        (404, None, "permanent"),
        (408, None, "transient"),
        (409, None, "transient"),
        (422, None, "permanent"),
        (429, "rate_limit_exceeded", "transient"),
        (429, "insufficient_quota", "permanent"),
        (500, "server_error", "transient"),
        (503, None, "transient"),
        (529, None, "transient"),
    ],
)
def test_a_rejection(call: Call, status: int, code: str | None, meaning: str) -> None:
    """The status and the code decide; the reason is kept, the key that the server repeats is not."""
    error = refused(rejection(status, code, {"x-request-id": "req_7"}), call)
    assert (transience(error), error.code) == (meaning, code or f"http_{status}")
    assert error.message == f"HTTP {status}: No: [key] (request req_7)"


@pytest.mark.parametrize("status", [502, 504])
def test_a_gateway_that_got_no_answer(status: int) -> None:
    """The server behind it may have begun: a create is unknown, anything else is asked again."""
    assert transience(refused(rejection(status, None), create)) == "unknown"
    assert transience(refused(rejection(status, None), look)) == "transient"


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"Retry-After": "7"}, 7, 7),
        ({"Retry-After": "0"}, 0, 0),
        ({"retry-after-ms": "1500", "Retry-After": "9"}, 1.5, 1.5),
        ({"retry-after-ms": "soon", "Retry-After": "9"}, 9, 9),
    ],
)
@pytest.mark.parametrize("status", [409, 429, 503])
def test_the_server_says_when(status: int, headers: dict[str, str], low: float, high: float) -> None:
    """Retry-After counts as seconds, and retry-after-ms before it."""
    told = refused(rejection(status, None, headers), create).retry_after
    assert told is not None
    assert low <= told <= high


@pytest.mark.parametrize(("seconds", "low", "high"), [(600, 500, 601), (-600, 0, 0)])
def test_the_server_says_a_date(seconds: float, low: float, high: float) -> None:
    """Retry-After as a date is the time until then, and none where it has passed."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
    told = refused(rejection(503, None, {"Retry-After": date}), create).retry_after
    assert told is not None
    assert low <= told <= high


@pytest.mark.parametrize("body", [PAGE, b"", b"null", b"[]", b'{"error": null}', b'{"error": "no"}', b'{"error": {}}'])
def test_an_error_without_a_reason(body: bytes) -> None:
    """The status alone decides, and the message says that no reason was given."""
    error = refused(saying(answer(503, body)), create)
    assert (transience(error), error.code, error.message) == ("transient", "http_503", "HTTP 503: no reason given")


def test_an_error_of_odd_types() -> None:
    """Whatever stands for code and message becomes text that the database can hold."""
    body = {"error": {"code": ["a\x00"] * 500, "message": {"text": "\ud800"}, "type": 1, "param": {}}}
    error = refused(saying(answer(400, body)), create)
    assert len(error.code) == 100
    assert (error.code + error.message).encode().count(b"\x00") == 0


def test_a_redirect_is_not_followed() -> None:
    """A POST that follows it would be sent twice; the message says what to set."""
    error = refused(saying(answer(307, b"", {"Location": "/v1/responses"})), create)
    assert transience(error) == "permanent"
    assert "OPENAI_BASE_URL" in error.message


@pytest.mark.parametrize(
    "script",
    [*LOST.values(), rejection(409, None), rejection(429, None), rejection(500, None), rejection(307, None)],
)
def test_create_sends_one_post(script: Script) -> None:
    """Whatever happens to it, a create goes out once: the SDK's own retries are off."""

    async def story() -> list[tuple[str, str]]:
        async with scripted(script) as server, backend_at(server.url, limit=limit(script)) as backend:
            with pytest.raises(ProviderError):
                await backend.create(step())
            return [(request.method, request.path) for request in server.requests]

    assert asyncio.run(story()) == [("POST", "/v1/responses")]


@pytest.mark.parametrize("status", [400, 404, 409, 500])
def test_cancelling_what_has_ended(status: int) -> None:
    """A rejection for good leaves the response as it is; one that may pass is the caller's to repeat."""
    script = rejection(status, None)
    if status in {400, 404}:
        ask(script, cancel)
    else:
        assert transience(refused(script, cancel)) == "transient"


def test_cancelling_does_not_read_the_answer() -> None:
    """What the provider says to a cancel changes nothing: the response is looked at until it has ended."""
    ask(saying(answer(200, PAGE)), cancel)


@pytest.mark.parametrize("status", [200, 404])
def test_deleting_a_conversation(status: int) -> None:
    """One request; a conversation that the provider does not know is as good as deleted."""

    async def story() -> Request:
        async with scripted(saying(answer(status, PAGE))) as server, backend_at(server.url) as backend:
            await backend.delete_conversation("conv/1")
            (request,) = server.requests
            return request

    request = asyncio.run(story())
    assert (request.method, request.path) == ("DELETE", "/v1/conversations/conv%2F1")


@pytest.mark.parametrize(("status", "means"), [(500, "transient"), (401, "permanent"), (400, "permanent")])
def test_a_conversation_that_cannot_be_deleted(status: int, means: str) -> None:
    """Told as any other error."""
    error = refused(saying(answer(status, {})), lambda backend: backend.delete_conversation("conv_1"))
    assert transience(error) == means


def test_a_wait_for_a_free_request_can_be_cancelled() -> None:
    """A request that never got its turn is never sent, and leaves nothing that warns."""

    async def story() -> int:
        async with scripted(hang) as server, backend_at(server.url, requests=1) as backend:
            first = asyncio.create_task(look(backend))
            second = asyncio.create_task(look(backend))
            await asyncio.wait_for(server.arrived.wait(), 5)
            for task in (second, first):
                task.cancel()
            await asyncio.gather(first, second, return_exceptions=True)
            assert (first.cancelled(), second.cancelled()) == (True, True)
            return len(server.requests)

    assert asyncio.run(story()) == 1


@pytest.mark.parametrize("key", ["sk-\n", "sk-é", "sk-\x00"])
def test_a_key_that_no_header_can_carry(key: str) -> None:
    """It is named at the start by its variable, and not shown."""
    with pytest.raises(SettingsError, match=r"^OPENAI_API_KEY: ") as caught:
        Http(api_key=key, base_url=None, requests=1, timeout=1)
    assert key not in str(caught.value)


def test_an_answer_without_an_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: a look that may be tried again, before the answer has taken the worker's memory."""
    monkeypatch.setattr(connections, "_LARGEST", 1_000_000)

    async def script(_: Request) -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
        while True:
            yield b" " * 100_000

    error = refused(script, look)
    assert (error.code, transience(error)) == ("bad_answer", "transient")
