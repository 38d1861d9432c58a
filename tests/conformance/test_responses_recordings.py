"""The Responses backend understands what api.openai.com was recorded saying, sent over a real socket."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
from openai.types.responses import Response
from openai.types.responses.response_usage import ResponseUsage

from tests.recordings import Exchange, exchanges, need
from tests.scripted import Request, answer, backend_at, scripted, step
from worker.assistants.prices import Prices
from worker.backends.base import Done, Look, NeedsTools, Pending
from worker.errors import ProviderError
from worker.response import Asked, HostedCall, Usage


@pytest.fixture(scope="module")
def recorded() -> list[Exchange]:
    """Return the exchanges; skips, or fails in CI, where there are none."""
    need("openai-exchanges.jsonl.gz")
    return exchanges()


def tell(covered: object) -> None:
    """Say how many exchanges a test covered."""
    print(covered)  # noqa: T201 - shown by `pytest -rP`


def replay(chosen: list[Exchange], call: str, *arguments: Any) -> list[Any]:
    """Return what the backend makes of each recorded body in turn: the value, or the ProviderError."""
    served: list[Exchange] = []

    async def script(_: Request) -> AsyncIterator[bytes]:
        yield answer(served[-1].status, served[-1].body.encode())

    async def story() -> list[Any]:
        results: list[Any] = []
        async with scripted(script) as server, backend_at(server.url) as backend:
            for exchange in chosen:
                served.append(exchange)
                try:
                    results.append(await getattr(backend, call)(*arguments))
                except ProviderError as error:
                    results.append(error)
        return results

    return asyncio.run(story())


def bodies(chosen: list[Exchange]) -> list[Response]:
    """Return the bodies as the SDK's models read them: the second opinion, on a way of its own."""
    return [Response.construct(**json.loads(one.body)) for one in chosen]


def responses(recorded: list[Exchange]) -> list[Exchange]:
    """Return the recorded responses, in background mode and not."""
    ok = [one for one in recorded if one.status == 200 and one.path.startswith("/responses")]
    return [one for one in ok if json.loads(one.body).get("object") == "response"]


def expected_usage(usage: ResponseUsage | None, model: str) -> Usage:
    if usage is None:
        return Usage()
    counted = usage.input_tokens, usage.output_tokens
    return Usage(*counted, Prices.load().cost(model, *counted))


def expected(response: Response) -> Look:
    """Return what a response means, said with the SDK's own reading of it."""
    if response.status in {"queued", "in_progress"}:
        return Pending(queued=response.status == "queued")
    usage, last = expected_usage(response.usage, response.model), response.output[-1].id
    calls = [item for item in response.output if item.type == "function_call"]
    if calls:  # none of those recorded has hosted calls beside them
        return NeedsTools(tuple(Asked(call.call_id, call.name, call.arguments) for call in calls), usage, last)
    done = Done(response.output_text, usage, last, at=getattr(response, "completed_at", None))
    return replace(done, hosted=tuple(hosted(response)), parts=tuple(parts(response)))


def hosted(response: Response) -> Iterator[HostedCall]:
    """Return what the provider's own tools did."""
    for item in response.output:
        if item.type == "code_interpreter_call":
            outputs = None if item.outputs is None else json.dumps([one.to_dict() for one in item.outputs])
            yield HostedCall(item.id, "code_interpreter", json.dumps({"code": item.code}), outputs)
        if item.type == "file_search_call":
            results = None if item.results is None else json.dumps([one.to_dict() for one in item.results])
            yield HostedCall(item.id, "file_search", json.dumps({"queries": item.queries}), results)


def parts(response: Response) -> list[dict[str, Any]]:
    """Return the texts of an answer with their citations; none where it has no citations."""
    said = [part.to_dict() for item in response.output if item.type == "message" for part in item.content]
    cites = any(part["annotations"] for part in said)
    return [
        {"type": "text", "text": part["text"], **({"annotations": part["annotations"]} if part["annotations"] else {})}
        for part in said
        if cites
    ]


def test_every_recorded_response_is_understood(recorded: list[Exchange]) -> None:
    """Status, calls, text, usage and last item are those that the SDK's models read; all kinds were among them."""
    chosen = responses(recorded)
    looks = replay(chosen, "look", "resp_1")
    for exchange, look, response in zip(chosen, looks, bodies(chosen), strict=True):
        assert look == expected(response), exchange.name
    covered = Counter(type(look).__name__ for look in looks)
    covered["background"] = sum(json.loads(one.body).get("background") is True for one in chosen)
    tell(dict(covered))
    assert min(covered[kind] for kind in ("Pending", "NeedsTools", "Done", "background")) > 0
    assert max(len(look.calls) for look in looks if isinstance(look, NeedsTools)) > 1
    names = {one.name for look in looks if isinstance(look, Done) for one in look.hosted}
    assert names == {"code_interpreter", "file_search"}


def test_every_recorded_creation_gives_its_id(recorded: list[Exchange]) -> None:
    """The id that create returns is the recorded one, whatever the response's status."""
    chosen = [one for one in responses(recorded) if one.method == "POST"]
    assert len(chosen) > 0
    tell(len(chosen))
    assert [created.id for created in replay(chosen, "create", step())] == [
        json.loads(one.body)["id"] for one in chosen
    ]


def test_every_recorded_conversation_gives_its_id(recorded: list[Exchange]) -> None:
    """The id that open_conversation returns is the recorded one."""
    chosen = [one for one in recorded if (one.method, one.path) == ("POST", "/conversations")]
    assert len(chosen) > 0
    tell(len(chosen))
    opened = replay(chosen, "open_conversation", "thread-1")
    assert [one.id for one in opened] == [json.loads(one.body)["id"] for one in chosen]


def test_every_recorded_error_is_a_permanent_rejection(recorded: list[Exchange]) -> None:
    """All are HTTP 400: nothing was created, trying again does not help, and the provider's reason is kept."""
    chosen = [one for one in recorded if one.status >= 400 and one.path == "/responses"]
    assert len(chosen) > 0
    tell(len(chosen))
    for exchange, error in zip(chosen, replay(chosen, "create", step()), strict=True):
        told = json.loads(exchange.body)["error"]
        assert isinstance(error, ProviderError), exchange.name
        assert error.code == (told["code"] or "http_400"), exchange.name
        assert told["message"] in error.message, exchange.name
        assert (error.transient, error.unknown, error.retry_after) == (False, False, None), exchange.name
