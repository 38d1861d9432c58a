"""`runwright backends` and servers of every kind: what they speak is seen, what is wrong is a row and no error."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.nursery import Nursery
from tests.scripted import Request, answer, scripted
from tests.servers import Simulator
from worker.store import assistants
from worker.store.database import Database

KEY = "sk-never-shown-0123456789"
Seen = Callable[..., str]


def told(request: Request) -> bytes:
    """Answer as a server of chat completions alone: models, and no word for what it does not know."""
    if request.path == "/v1/models":
        return answer(200, {"object": "list", "data": [{"id": "small"}]})
    return answer(404, b"404 page not found")


async def chat_only(request: Request) -> AsyncIterator[bytes]:
    yield told(request)


async def echoing(request: Request) -> AsyncIterator[bytes]:
    """Repeat the route that is not known, as OpenAI does."""
    if request.path == "/v1/models":
        yield told(request)
        return
    yield answer(404, {"error": {"message": f"Invalid URL ({request.method} {request.path})"}})


async def refusing(request: Request) -> AsyncIterator[bytes]:
    yield answer(401, {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}})


@pytest.fixture
def seen(nursery: Nursery, sqlite_url: str) -> Seen:
    """Return what the command says, as a process of its own, and never with the key."""

    def seen(*arguments: str, **environ: str) -> str:
        env = {**os.environ, "DATABASE_URL": sqlite_url, **environ}
        ended = nursery.run("tasks.cli.main", "backends", *arguments, env=env)
        assert ended.returncode == 0, ended.stderr
        assert KEY not in ended.stdout + ended.stderr
        return ended.stdout if arguments else ended.stdout + ended.stderr

    return seen


def use(database_url: str, **places: dict[str, Any] | str) -> None:
    """Make an assistant for each of these backends."""
    database = Database(database_url)
    with database.write() as connection:
        for name, backend in places.items():
            assistants.apply(connection, name, {"model": "small", "backend": backend})
    database.close()


async def beside(script: Any, look: Any) -> Any:
    """Return what a blocking look gives while a server follows this script."""
    async with scripted(script) as server:
        return await asyncio.to_thread(look, server.url)


def test_a_server_with_conversations_is_seen(sqlite_url: str, simulator: Simulator, seen: Seen) -> None:
    """Expected: the simulator keeps conversations and responses, its model is told of; one row for both assistants."""
    use(sqlite_url, first="responses", second="responses")
    environ = {"OPENAI_BASE_URL": simulator.url, "OPENAI_API_KEY": KEY}
    document = json.loads(seen("--json", **environ))
    assert [one["name"] for one in document["protocols"]] == ["responses", "responses-stateless", "chat", "assistants"]
    (row,) = document["places"]
    assert (row["protocol"], row["address"], row["key"], row["key_set"]) == (
        "responses",
        simulator.url,
        "OPENAI_API_KEY",
        True,
    )
    assert (row["reachable"], row["error"], row["conversations"], row["responses"]) == (True, None, True, True)
    assert row["assistants"] == ["first", "second"]
    assert "conversations" not in " ".join(row["hints"])


@pytest.mark.parametrize("script", [chat_only, echoing], ids=["without a word", "repeats the route"])
def test_a_protocol_that_the_server_does_not_speak_gets_a_hint(sqlite_url: str, script: Any, seen: Seen) -> None:
    """Expected: no conversations, no Assistants API, and words to say instead; nothing to say of chat."""

    def look(url: str) -> Any:
        use(
            sqlite_url,
            **{name: {"protocol": name, "base_url": url} for name in ("responses", "chat", "assistants")},
        )
        return json.loads(seen("--json", OPENAI_BASE_URL=url, OPENAI_API_KEY=KEY))["places"]

    rows = {row["protocol"]: row for row in asyncio.run(beside(script, look)) if row["assistants"]}
    assert {(row["models"][0], row["conversations"], row["assistants_api"]) for row in rows.values()} == {
        ("small", False, False)
    }
    assert "`responses-stateless` or `chat`" in rows["responses"]["hints"][0]
    assert "no Assistants API" in rows["assistants"]["hints"][0]
    assert rows["chat"]["hints"] == []


def test_what_is_wrong_is_told_in_its_row(sqlite_url: str, seen: Seen) -> None:
    """Expected: a wrong key, a server that is not there and a key that is not set each in a row, with exit code 0."""

    def look(url: str) -> str:
        use(
            sqlite_url,
            refused={"protocol": "chat", "base_url": url, "api_key": "RUNWRIGHT_KEY_A"},
            away={"protocol": "chat", "base_url": "http://127.0.0.1:9/v1"},
            unset={"protocol": "chat", "base_url": url, "api_key": "RUNWRIGHT_KEY_B"},
        )
        return " ".join(seen(RUNWRIGHT_KEY_A=KEY).split())

    shown = asyncio.run(beside(refusing, look))
    for words in ("HTTP 401", "not reachable", "RUNWRIGHT_KEY_B: not set here", "OPENAI_API_KEY: not set here"):
        assert words in shown
    assert "not asked: set RUNWRIGHT_KEY_B here, as the workers have it" in shown
    assert "not asked: set OPENAI_API_KEY here, as the workers have it; the simulator of `runwright up`" in shown


def test_a_server_whose_key_is_not_set_here_is_not_asked(sqlite_url: str, seen: Seen) -> None:
    """Expected: nothing is claimed of it, not even an error: the workers may have the key."""
    (row,) = json.loads(seen("--json"))["places"]
    assert (row["key_set"], row["reachable"], row["error"], row["models"]) == (False, None, None, None)
