"""OpenAI's Responses in background mode: a run is a chain of stored responses on one conversation per thread.

A response that wants functions is `completed` with function_call items, so each step of a run is a response of its own.
A conversation takes one response at a time (400 conversation_locked). Creating is not idempotent, and there is no
idempotency key (openai 3.54): a create goes out once.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from worker.assistants import windows
from worker.assistants.prices import Prices
from worker.backends.base import Created, Ended, Look, Pending, Step, Tail
from worker.backends.places import PROTOCOLS
from worker.backends.responses import items
from worker.backends.responses.bodies import BegunEvent, EndedEvent, ItemsBody, ResponseBody
from worker.backends.responses.meaning import counted, meaning
from worker.backends.responses.requests import asked_items, background_options, message_items, settings, with_hosted
from worker.backends.responses.streams import Stream
from worker.backends.transport.bodies import Named, read
from worker.backends.transport.connections import Http, Reply, encode
from worker.backends.transport.faults import kept_out, unreadable
from worker.errors import ProviderError
from worker.response import Opened, Usage

_ITEMS = 20  # the most that one request may add to a conversation (openai 3.54, conversation_create_params.py)
_PAGES = 100  # of a hundred items each: far more than a step adds


class ResponsesBackend:
    """Speaks to one server with one key; bodies go out and come in as they are, checked where a run needs them."""

    can = PROTOCOLS["responses"]

    def __init__(self, http: Http, prices: Prices) -> None:
        """Take the server's connections; a step that finds no place for a stream is created without, and looked at."""
        self._http = http
        self.slots: asyncio.Semaphore = http.bound
        self.readers = http.readers
        self._prices = prices

    async def open_conversation(self, thread_id: str, history: Sequence[Mapping[str, Any]] = ()) -> Opened:
        """Create the thread's conversation; an answer that is lost leaves one behind that nobody uses or pays for."""
        said = [item for message in history for item in message_items(message["content"], message["role"])]
        body = {"metadata": {"thread_id": thread_id[:512]}, **({"items": said[:_ITEMS]} if said else {})}
        conversation = (await self._http.send("POST", "/conversations", encode(body))).read(Named).id
        for start in range(_ITEMS, len(said), _ITEMS):
            more = {"items": said[start : start + _ITEMS]}
            await self._http.send("POST", f"{_conversation(conversation)}/items", encode(more))
        return Opened(conversation)

    async def create(self, step: Step) -> Created:
        """Create the step's response once; background and store are always explicit."""
        # A step with a window may not be streamed (openai 3.54, BackgroundOptions), whatever RUNWRIGHT_STREAM says.
        if step.stream and self._http.can_stream and windows.of(step.config) is None:
            return await self._create_streamed(step)
        return _created(await self._http.send("POST", "/responses", encode(_body(step)), creating=True))

    async def _create_streamed(self, step: Step) -> Created:
        content = encode({**_body(step), "stream": True})
        reading = partial(Stream, meaning=self._told, key=self._http.key, hear=step.on_text)
        reply, stream = await self._http.stream("/responses", content, reading)
        if stream is None:
            return _created(reply)
        try:
            ident = reply.read(BegunEvent, creating=True).response.id
        except ProviderError:
            stream.close()
            raise
        return Created(ident, reply.request_id, stream, headers=reply.headers)

    def _told(self, event: bytes) -> Look:
        return self._meaning(read(event, EndedEvent).response)

    async def adopt(self, step: Step, after: str) -> Ended | None:
        """Find the step's result among the items that responses add to a conversation when they have ended.

        There is no list of responses and no idempotent create (openai 3.54), so this is the one trace of a lost answer.
        """
        found = items.answer_to(asked_items(step), await self._items(step.conversation, after))
        ended = None if found is None else meaning(found, Usage())
        return None if isinstance(ended, Pending) else ended

    async def tail(self, conversation: str) -> Tail:
        """Read the newest hundred items; what is open further back would have kept the conversation from going on."""
        newest = await self._http.send("GET", f"{_conversation(conversation)}/items?order=desc&limit=100")
        return items.tail(newest.read(ItemsBody).data)

    async def _items(self, conversation: str, after: str) -> list[Any]:
        found: list[Any] = []
        for _ in range(_PAGES):
            since = f"&after={quote(after, safe='')}" if after else ""
            path = f"{_conversation(conversation)}/items?order=asc&limit=100{since}"
            page = (await self._http.send("GET", path)).read(ItemsBody)
            found += page.data
            if not page.has_more or not page.last_id or page.last_id == after:
                return found
            after = page.last_id
        raise unreadable(f"the list of a conversation's items has no end after {_PAGES} pages", creating=False)

    async def look(self, provider_id: str) -> Look:
        """Retrieve the response and say what it means."""
        return self._meaning((await self._http.send("GET", _path(provider_id))).read(ResponseBody))

    async def cancel(self, provider_id: str) -> None:
        """Cancel the response; one that has ended already is left as it is."""
        try:
            await self._http.send("POST", f"{_path(provider_id)}/cancel")
        except ProviderError as error:
            if error.transient:
                raise

    async def delete_conversation(self, conversation: str) -> None:
        """Delete the conversation with its items; one that the provider does not know is as good as deleted."""
        try:
            await self._http.send("DELETE", _conversation(conversation))
        except ProviderError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    def _meaning(self, response: ResponseBody) -> Look:
        return kept_out(meaning(response, counted(response, self._prices) or Usage()), self._http.key)


def _created(reply: Reply) -> Created:
    ident = reply.read(Named, creating=True).id
    return Created(ident, reply.request_id, headers=reply.headers)


def _path(provider_id: str) -> str:
    return f"/responses/{quote(provider_id, safe='')}"


def _conversation(conversation: str) -> str:
    return f"/conversations/{quote(conversation, safe='')}"


def _body(step: Step) -> dict[str, Any]:
    config = step.config
    return {
        **with_hosted(settings(step), config),
        **({"truncation": config["truncation"]} if "truncation" in config else {}),
        "input": asked_items(step),
        "conversation": step.conversation,
        "background": True,
        "store": True,
        **background_options(step),
    }
