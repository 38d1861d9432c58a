"""What a server can be seen to speak, by requests that make nothing and cost nothing."""

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus

from worker.backends.transport.connections import Http
from worker.errors import ProviderError

_SECONDS = 10.0  # for all of it


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server answered; None where it did not come to that."""

    reachable: bool
    error: str | None = None
    """Why it cannot be reached, or what it refuses, as a wrong key."""
    models: list[str] | None = None
    """Their ids, where it lists them."""
    conversations: bool | None = None
    """It keeps conversations."""
    responses: bool | None = None
    """It keeps responses."""
    assistants_api: bool | None = None
    """It has the Assistants API."""


async def survey(http: Http) -> Seen:
    """Ask for its models, then for things that are not there: only a route that exists says which thing is missing."""
    try:
        async with asyncio.timeout(_SECONDS):
            return await _survey(http)
    except TimeoutError:
        return Seen(reachable=False, error=f"no answer in {_SECONDS:g} s")


async def _survey(http: Http) -> Seen:
    models, error = None, None
    try:
        models = _ids((await http.send("GET", "/models")).body)
    except ProviderError as refused:
        if refused.status is None:
            return Seen(reachable=False, error=refused.message)
        error = None if refused.status == HTTPStatus.NOT_FOUND else refused.message
        if refused.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return Seen(reachable=True, error=error)
    return Seen(
        reachable=True,
        error=error,
        models=models,
        conversations=await _knows(http, "/conversations/conv_0", "conv_0"),
        responses=await _knows(http, "/responses/resp_0", "resp_0"),
        assistants_api=await _knows(http, "/assistants?limit=1", "assistants"),
    )


async def _knows(http: Http, path: str, word: str) -> bool:
    """Tell whether it answers, or refuses with a word about the thing; an unknown route is at most repeated."""
    try:
        await http.send("GET", path)
    except ProviderError as refused:
        about = refused.message.replace(path.partition("?")[0], "").lower()
        return refused.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND) and word in about
    return True


def _ids(body: bytes) -> list[str] | None:
    """Return the ids of a list of models, None where it is none."""
    try:
        return [str(one["id"]) for one in json.loads(body)["data"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
