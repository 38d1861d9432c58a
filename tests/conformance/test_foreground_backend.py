"""The foreground backends against a server that rejects, lies, drops and hangs."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from tests.conformance.test_responses_backend import LOST, PAGE, hang, limit
from tests.foreground import DIALECTS, HEAD, ID, ask, begun, carry, foreground, hello, piece, queued, taken
from tests.scripted import KEY, Request, Script, answer, saying, scripted, step, transience
from worker.backends.base import Done, Failed, Tail
from worker.backends.foreground.backend import ForegroundBackend
from worker.backends.foreground.connection import Patience
from worker.backends.transport import connections, sse
from worker.errors import ProviderError
from worker.response import Opened

pytestmark = pytest.mark.parametrize("dialect", DIALECTS)


def refused(dialect: str, script: Script, *, queue: float = 5.0) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        ask(dialect, script, carry, queue=queue)
    assert KEY not in f"{caught.value} {caught.value.message}"
    return caught.value


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("whole", [True, False])
def test_an_answer(dialect: str, whole: bool) -> None:
    """Expected: the same end from a stream and from one piece, under the server's id and request id."""
    script = saying(answer(200, piece(dialect))) if whole else saying(begun(dialect), hello(dialect))

    async def story(backend: ForegroundBackend) -> None:
        created = await taken(backend)
        assert (created.id, created.keeps_slot) == (ID[dialect], True)
        assert created.following
        ended = await created.following.ended(5)
        assert isinstance(ended, Done)
        assert (ended.text, ended.last_item, len(ended.items)) == ("hello", "", 2)
        created.following.close()

    ask(dialect, script, story)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1E+999"])
def test_numbers_that_are_none_are_not_kept(dialect: str, number: bytes) -> None:
    """Expected: the answer, as JSON; what is none would be refused by the database, and paid for again."""
    odd = piece(dialect)
    said = odd["choices"][0]["message"] if dialect == "chat" else odd["output"][0]
    said["reasoning_details"] = [{"score": "HERE"}]
    script = saying(answer(200, json.dumps(odd).encode().replace(b'"HERE"', number)))
    ended = ask(dialect, script, carry)
    assert isinstance(ended, Done)
    assert json.loads(json.dumps(ended.items[-1], allow_nan=False))["reasoning_details"] == [{"score": None}]


def test_a_slow_answer_is_told_to_who_asks_once_more(dialect: str) -> None:
    """Expected: nothing so soon, and nothing lost by that."""
    go_on = asyncio.Event()

    async def script(_: Request) -> AsyncIterator[bytes]:
        yield begun(dialect)
        await go_on.wait()
        yield hello(dialect)

    async def story(backend: ForegroundBackend) -> None:
        following = (await taken(backend)).following
        assert following
        assert await following.ended(0.05) is None
        go_on.set()
        assert isinstance(await following.ended(5), Done)
        following.close()

    ask(dialect, script, story)


# ── what breaks ───────────────────────────────────────────────────────────────────────────────────────────────────────


def then_silence(*chunks: bytes) -> Script:
    async def script(_: Request) -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk
        await asyncio.Event().wait()

    return script


@pytest.mark.parametrize("cut", [0, 20])
def test_a_stream_that_breaks(dialect: str, cut: int) -> None:
    """Expected: the step has failed in passing; no end is made up from half of one."""
    script = saying(begun(dialect), hello(dialect)[:cut])
    ended = ask(dialect, script, carry)
    assert isinstance(ended, Failed)
    assert (ended.code, ended.transient) == ("interrupted", True)


def test_a_stream_shorter_than_it_says(dialect: str) -> None:
    """Expected: a connection error is a break as well."""
    longer = begun(dialect).replace(b"\r\n\r\n", b"\r\nContent-Length: 100000\r\n\r\n", 1)
    ended = ask(dialect, saying(longer), carry)
    assert isinstance(ended, Failed)
    assert ended.code == "interrupted"


def test_silence_once_it_has_begun_is_noticed(dialect: str) -> None:
    """Expected: after the stall limit, however long the queue may take."""
    ended = ask(dialect, then_silence(begun(dialect)), carry, stall=0.2, queue=60.0)
    assert isinstance(ended, Failed)
    assert (ended.code, ended.transient) == ("stalled", True)


def test_comments_do_not_keep_a_step_for_ever(dialect: str) -> None:
    """Expected: a server that only keeps the connection open has as long as its queue may take, not the run's hour."""

    async def script(_: Request) -> AsyncIterator[bytes]:
        yield begun(dialect)
        while True:
            yield b": still here\n\n"
            await asyncio.sleep(0)

    ended = ask(dialect, script, carry, stall=60.0, queue=0.3)
    assert isinstance(ended, Failed)
    assert (ended.code, ended.transient) == ("stalled", True)


@pytest.mark.parametrize("rest", [b": a comment\n", b"data: one line without an end", b"event: other\ndata: {}\n\n"])
def test_a_stream_without_an_end_is_left(dialect: str, rest: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: the attempt has failed when it takes more than any answer does; nothing of it is kept in memory."""
    monkeypatch.setattr(sse, "MOST", 1_000_000)

    async def script(_: Request) -> AsyncIterator[bytes]:
        yield begun(dialect)
        while True:
            yield rest * 1000

    ended = ask(dialect, script, carry)
    assert isinstance(ended, Failed)
    assert (ended.code, ended.transient) == ("too_long", True)


def test_an_answer_in_one_piece_without_an_end(dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: left unread like one that cannot be read; the chain makes a failed attempt of it."""
    monkeypatch.setattr(connections, "_LARGEST", 1_000_000)

    async def script(_: Request) -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
        while True:
            yield b" " * 100_000

    assert transience(refused(dialect, script)) == "unknown"


def test_a_queue_is_no_silence(dialect: str) -> None:
    """Expected: what has not begun may take longer than the stall limit."""
    go_on = asyncio.Event()

    async def script(_: Request) -> AsyncIterator[bytes]:
        yield queued(dialect)
        await go_on.wait()
        yield begun(dialect).removeprefix(HEAD) + hello(dialect)

    async def story(backend: ForegroundBackend) -> None:
        carried = asyncio.create_task(carry(backend))
        done, _ = await asyncio.wait({carried}, timeout=0.5)
        assert not done
        go_on.set()
        assert isinstance(await carried, Done)

    ask(dialect, script, story, stall=0.1, queue=60.0)


def test_a_queue_has_its_own_limit(dialect: str) -> None:
    """Expected: a step that never begins is stalled, whether its create has been answered or not."""

    async def story(backend: ForegroundBackend) -> tuple[str, bool]:
        try:
            ended = await carry(backend)
        except ProviderError as error:
            return error.code, error.unknown
        assert isinstance(ended, Failed)
        return ended.code, ended.transient

    for script in (then_silence(queued(dialect)), hang):
        assert ask(dialect, script, story, stall=60.0, queue=0.3) == ("stalled", True)


def test_the_limit_of_a_step_holds_for_its_queue(dialect: str) -> None:
    """Expected: an assistant's step_timeout, else the setting's, where that is shorter than the queue may be."""
    limited = step({"step_timeout": 0.2})
    assert (Patience(600, 30).first(step()), Patience(600, 30, 60).first(step())) == (600, 60)
    assert Patience(600, 30, 60).first(limited) == Patience(600, 30).first(limited) == 0.2
    with pytest.raises(ProviderError, match=r"^stalled: "):
        ask(dialect, hang, lambda backend: taken(backend, limited), queue=60.0)


@pytest.mark.parametrize("name", sorted(set(LOST) - {"error with 200"} - {name for name in LOST if name[:3] == "id "}))
def test_a_lost_answer_is_unknown(dialect: str, name: str) -> None:
    """Expected: as with every create; the chain makes a failed attempt of it."""
    assert transience(refused(dialect, LOST[name], queue=limit(LOST[name]))) == "unknown"


@pytest.mark.parametrize(
    ("script", "meaning", "code"),
    [
        (
            saying(answer(400, {"error": {"code": "invalid_value", "message": f"no {KEY}"}})),
            "permanent",
            "invalid_value",
        ),
        (saying(answer(401, PAGE)), "permanent", "http_401"),
        (saying(answer(404, {"error": {"message": "no such model"}})), "permanent", "http_404"),
        (saying(answer(429, {"error": {"message": "slowly"}}, {"Retry-After": "7"})), "transient", "http_429"),
        (saying(answer(500, {"error": {"code": 500, "message": "Failed to parse input at pos 12"}})), "unknown", "500"),
        (saying(answer(503, PAGE)), "transient", "http_503"),
        (saying(answer(504, PAGE)), "unknown", "http_504"),
        (saying(HEAD), "unknown", "stream_ended"),
    ],
)
def test_a_rejection(dialect: str, script: Script, meaning: str, code: str) -> None:
    """Expected: a status that says no means what it always means."""
    error = refused(dialect, script)
    assert (transience(error), error.code) == (meaning, code)


@pytest.mark.parametrize("whole", [True, False])
def test_an_error_in_place_of_an_answer(dialect: str, whole: bool) -> None:
    """Expected: the server's word for it, without the key that it repeats."""
    error = {"error": {"code": 503, "message": f"no {KEY}"}}
    told = answer(200, error) if whole else HEAD + b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n"
    ended = ask(dialect, saying(told), carry)
    assert isinstance(ended, Failed)
    assert (ended.code, ended.message, ended.transient) == ("http_503", "no [key]", True)


# ── places ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_step_gives_its_place_back(dialect: str) -> None:
    """Expected: with one place, after each way to end the next step finds it free."""
    error = saying(HEAD + b'event: error\ndata: {"error": {}}\n\n')
    scripts = [saying(), saying(answer(400, PAGE)), saying(answer(200, piece(dialect))), saying(begun(dialect)), error]
    left = [*scripts]

    async def script(request: Request) -> AsyncIterator[bytes]:
        async for chunk in left.pop(0)(request):
            yield chunk

    async def story(backend: ForegroundBackend) -> None:
        for _ in scripts:
            with contextlib.suppress(ProviderError):
                await asyncio.wait_for(carry(backend), 10)
            assert not backend.slots.locked()

    ask(dialect, script, story)
    assert not left


@pytest.mark.parametrize("before", [True, False])
def test_the_server_sees_its_client_leave(dialect: str, before: bool) -> None:
    """Expected: a step that is left, before its first event or after, is a connection that ends."""
    came, left = asyncio.Event(), asyncio.Event()

    async def script(_: Request) -> AsyncIterator[bytes]:
        try:
            yield queued(dialect) if before and dialect == "chat" else begun(dialect)
            came.set()
            while True:
                yield b": still here\n\n"
                await asyncio.sleep(0.01)
        finally:
            left.set()

    async def story(backend: ForegroundBackend) -> None:
        carried = asyncio.create_task(carry(backend))
        await asyncio.wait_for(came.wait(), 5)
        carried.cancel()
        await asyncio.wait({carried})
        await asyncio.wait_for(left.wait(), 5)
        assert not backend.slots.locked()

    ask(dialect, script, story)


def test_what_a_server_without_state_has_not(dialect: str) -> None:
    """Expected: no request is made for what only we keep, and a step that is looked at is gone."""

    async def story() -> None:
        async with scripted(saying()) as server, foreground(dialect, server.url) as backend:
            message = {"role": "assistant", "content": [{"type": "text", "text": "hello"}]}
            opened = await backend.open_conversation("t", [message])
            assert isinstance(opened, Opened)
            assert opened.id.startswith("local_")
            assert [item["role"] for item in opened.items] == ["assistant"]
            assert (await backend.open_conversation("t")).id != opened.id
            looked = await backend.look("x")
            assert isinstance(looked, Failed)
            assert (looked.code, looked.transient) == ("interrupted", True)
            assert await backend.tail(opened.id) == Tail("", ())
            await backend.cancel("x")
            await backend.delete_conversation(opened.id)
            assert not server.requests

    asyncio.run(story())
