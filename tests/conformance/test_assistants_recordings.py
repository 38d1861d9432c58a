"""The Assistants backend understands what api.openai.com was recorded saying, sent over a real socket."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.assisting import assistants_at, doing
from tests.recordings import Exchange, exchanges, need
from tests.scripted import Request, answer, scripted
from worker.assistants.prices import Prices
from worker.backends.base import Created, Done, NeedsTools, Pending
from worker.response import Answer, Asked, Usage

NO_STEPS = Exchange("", "GET", "", 200, json.dumps({"object": "list", "data": [], "has_more": False}))


@pytest.fixture(scope="module")
def recorded() -> list[Exchange]:
    """Return the exchanges; skips, or fails in CI, where there are none."""
    need("openai-exchanges.jsonl.gz")
    return exchanges()


def replay(chosen: Sequence[Exchange], others: Sequence[Exchange], *calls: Any) -> list[Any]:
    """Make one call for each of these exchanges, which answers it; what is asked beside it gets its recorded answer."""
    served: list[Exchange] = []
    beside = {one.path: one for one in others}

    async def script(request: Request) -> AsyncIterator[bytes]:
        now = served[-1]
        path = urlsplit(request.path).path.removeprefix("/v1")
        # No list of steps was recorded: the runs, which had tools of the server's own, show that it is asked for.
        given = now if path == now.path else beside.get(path, NO_STEPS if path.endswith("/steps") else None)
        assert given, path
        yield answer(given.status, given.body.encode(), {"openai-poll-after-ms": "250"})

    async def story() -> list[Any]:
        results: list[Any] = []
        async with scripted(script) as server, assistants_at(server.url) as backend:
            for exchange, call in zip(chosen, calls, strict=True):
                served.append(exchange)
                results.append(await call(backend))
        return results

    return asyncio.run(story())


def of_kind(recorded: list[Exchange], method: str, *ending: str) -> list[Exchange]:
    """Return the exchanges whose path ends so; `*` stands for any one part."""
    return [one for one in recorded if one.method == method and _fits(one.path, ending)]


def _fits(path: str, ending: Sequence[str]) -> bool:
    parts = path.strip("/").split("/")
    return len(parts) == len(ending) and all(want in ("*", part) for want, part in zip(ending, parts, strict=True))


def polls(recorded: list[Exchange]) -> list[Exchange]:
    return of_kind(recorded, "GET", "threads", "*", "runs", "*")


def expected(body: dict[str, Any], text: str | None) -> Any:
    """Return what a recorded run means, read without any of the backend's code."""
    if body["status"] in ("queued", "in_progress"):
        return Pending(queued=body["status"] == "queued", look_after=0.25)
    if body["status"] == "requires_action":
        calls = body["required_action"]["submit_tool_outputs"]["tool_calls"]
        asked = [Asked(one["id"], one["function"]["name"], one["function"]["arguments"]) for one in calls]
        return NeedsTools(tuple(asked), Usage(), None)
    tokens = body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]
    usage = Usage(*tokens, Prices.load().cost(body["model"], *tokens))
    return (text, usage, body["completed_at"])


def said(lists: Sequence[Exchange], run_id: str) -> str:
    """Return the recorded text of a run."""
    messages = {one["id"]: one for exchange in lists for one in json.loads(exchange.body)["data"]}
    return "\n\n".join(one["content"][0]["text"]["value"] for one in messages.values() if one["run_id"] == run_id)


def test_every_recorded_poll_is_understood(recorded: list[Exchange]) -> None:
    """Expected: what it waits for, its calls or its text and usage; the whole walk to `completed` was among them."""
    chosen = polls(recorded)
    lists = [one for one in of_kind(recorded, "GET", "threads", "*", "messages") if json.loads(one.body)["data"]]
    paths = ["/".join(one.path.split("/")[2:5:2]) for one in chosen]
    looks = replay(chosen, lists, *[lambda backend, path=path: backend.look(path) for path in paths])
    for exchange, look in zip(chosen, looks, strict=True):
        body = json.loads(exchange.body)
        found = (look.text, look.usage, look.at) if isinstance(look, Done) else look
        assert found == expected(body, said(lists, body["id"])), exchange.name
    covered = Counter(type(look).__name__ for look in looks)
    print(dict(covered))  # noqa: T201 - shown by `pytest -rP`
    assert min(covered[kind] for kind in ("Pending", "NeedsTools", "Done")) > 0


def test_every_recorded_creation_gives_its_id(recorded: list[Exchange]) -> None:
    """Expected: thread, run and what was given its outputs are known by the recorded ids."""
    threads = of_kind(recorded, "POST", "threads")
    opened = replay(threads, (), *[lambda backend: backend.open_conversation("thread-1")] * len(threads))
    assert [one.id for one in opened] == [json.loads(one.body)["id"] for one in threads]

    submits = of_kind(recorded, "POST", "threads", "*", "runs", "*", "submit_tool_outputs")
    ids = ["/".join(one.path.split("/")[2:5:2]) for one in submits]
    steps = [doing(text="", previous=one, answers=[Answer("call_1", "3")]) for one in ids]
    created = replay(submits, (), *[lambda backend, step=step: backend.create(step) for step in steps])
    assert [one.id for one in created] == ids
    assert len(submits) > 0

    runs = of_kind(recorded, "POST", "threads", "*", "runs")
    assistants = of_kind(recorded, "POST", "assistants")
    made = [doing(conversation=one.path.split("/")[2]) for one in runs]
    found = replay(runs, assistants[:1], *[lambda backend, step=step: backend.create(step) for step in made])
    assert found == [Created(f"{one.path.split('/')[2]}/{json.loads(one.body)['id']}") for one in runs]
    assert len(runs) > 5
