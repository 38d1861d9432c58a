"""OpenAI's Responses in background mode: a run is a chain of stored responses on one conversation per thread.

A response that wants functions is `completed` with function_call items, so each step of a run is a response of its own.
A conversation takes one response at a time (400 conversation_locked). Creating is not idempotent, and there is no
idempotency key (openai 3.54): a create goes out once.
"""

import asyncio
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from tools.registry import Tool
from worker.backends import items
from worker.backends.base import Created, Done, Ended, Failed, Look, NeedsTools, Opened, Pending, Step, Tail
from worker.backends.bodies import BegunEvent, EndedEvent, ItemsBody, Named, ResponseBody, read
from worker.backends.faults import TRANSIENT_CODES, unreadable
from worker.backends.places import PROTOCOLS
from worker.backends.transport import Http, Reply, encode
from worker.errors import ProviderError
from worker.prices import Prices
from worker.response import Asked, Usage

Body = TypeVar("Body", bound=BaseModel)
# Keys of an assistant's configuration that Responses takes as they are.
_AS_IS = (
    "model",
    "instructions",
    "temperature",
    "top_p",
    "max_output_tokens",
    "parallel_tool_calls",
    "tool_choice",
    "service_tier",
)
_ITEMS = 20  # the most that one request may add to a conversation (openai 3.54, conversation_create_params.py)
_GOING_ON = frozenset({"queued", "in_progress"})


class ResponsesBackend:
    """Speaks to one server with one key; bodies go out and come in as they are, checked where a run needs them."""

    can = PROTOCOLS["responses"]

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str | None,
        requests: int,
        timeout: float,
        prices: Prices,
        streams: int = 0,
        foreign: bool = False,
    ) -> None:
        """Make no connection yet; `timeout` (seconds) is for one request, `requests` bounds those open at once.

        Of `streams` there are so many beside them; what finds no place is created without, and looked at. `foreign` is
        that of Http.
        """
        self._http = Http(
            api_key=api_key, base_url=base_url, requests=requests, timeout=timeout, streams=streams, foreign=foreign
        )
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

    def slot(self) -> asyncio.Semaphore:
        """Return the bound that all requests share."""
        return self._http.bound

    async def create(self, step: Step) -> Created:
        """Create the step's response once; background and store are always explicit."""
        if step.stream and self._http.can_stream:
            return await self._create_streamed(step)
        return _created(await self._http.send("POST", "/responses", encode(_body(step)), creating=True))

    async def _create_streamed(self, step: Step) -> Created:
        content = encode({**_body(step), "stream": True})
        reply, stream = await self._http.stream("/responses", content, self._told, step.on_text)
        if stream is None:
            return _created(reply)
        try:
            ident = reply.read(BegunEvent, creating=True).response.id
        except ProviderError:
            stream.close()
            raise
        return Created(ident, reply.headers.get("x-request-id"), stream, headers=reply.headers)

    def _told(self, event: bytes) -> Look:
        response = read(event, EndedEvent).response
        return meaning(response, self._usage(response))

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
        while True:
            since = f"&after={quote(after, safe='')}" if after else ""
            path = f"{_conversation(conversation)}/items?order=asc&limit=100{since}"
            page = (await self._http.send("GET", path)).read(ItemsBody)
            found += page.data
            if not page.has_more or not page.last_id or page.last_id == after:
                return found
            after = page.last_id

    async def look(self, provider_id: str) -> Look:
        """Retrieve the response and say what it means."""
        response = (await self._http.send("GET", _path(provider_id))).read(ResponseBody)
        return meaning(response, self._usage(response))

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

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    def _usage(self, response: ResponseBody) -> Usage:
        return counted(response, self._prices) or Usage()


def _created(reply: Reply) -> Created:
    ident = reply.read(Named, creating=True).id
    return Created(ident, reply.headers.get("x-request-id"), headers=reply.headers)


def counted(response: ResponseBody, prices: Prices) -> Usage | None:
    """Return what the server counted, None where it did not."""
    if response.usage is None:
        return None
    used = response.usage.input_tokens, response.usage.output_tokens
    return Usage(*used, prices.cost(response.model or "", *used))


def meaning(response: ResponseBody, usage: Usage) -> Look:
    """Return what a response says of its step."""
    status = response.status
    if status in _GOING_ON:
        return Pending(queued=status == "queued")
    last_item = response.output[-1].id if response.output else None
    if status in {"completed", "incomplete"}:
        if response.calls and status == "completed":
            return NeedsTools(_asked(response), usage, last_item)
        # Calls of an answer that was cut are nobody's: the next create looks for such calls, and answers them.
        known_end = None if response.calls else last_item
        return Done(response.text, usage, known_end, _stopped_by(response), response.completed_at)
    if response.error is None:
        told = f"the provider reports the response as {status[:80]}"
        return Failed(f"{status[:80]}_at_provider", told, usage, transient=False)
    code = response.error.code[:100]
    return Failed(code, response.error.message[:2000], usage, transient=code in TRANSIENT_CODES)


def _path(provider_id: str) -> str:
    return f"/responses/{quote(provider_id, safe='')}"


def _conversation(conversation: str) -> str:
    return f"/conversations/{quote(conversation, safe='')}"


def _body(step: Step) -> dict[str, Any]:
    config = step.config
    return {
        **settings(step),
        **({"truncation": config["truncation"]} if "truncation" in config else {}),
        "input": asked_items(step),
        "conversation": step.conversation,
        "background": True,
        "store": True,
    }


def settings(step: Step) -> dict[str, Any]:
    """Return what the assistant says for the model, and whose step it is."""
    config = step.config
    body: dict[str, Any] = {key: config[key] for key in _AS_IS if key in config}
    if "reasoning_effort" in config:
        body["reasoning"] = {"effort": config["reasoning_effort"]}
    if "response_format" in config:
        body["text"] = {"format": config["response_format"]}
    if step.tools:
        body["tools"] = [_function(tool) for tool in step.tools]
    return {**body, "metadata": {"run_id": step.run_id, "attempt": str(step.attempt), "step": str(step.number)}}


def asked_items(step: Step) -> list[Mapping[str, Any]]:
    """Return the step's own input: outputs of tools, then the user's message."""
    answers = [{"type": "function_call_output", "call_id": a.call_id, "output": a.output} for a in step.answers]
    return [*answers, *message_items(step.input)]


def message_items(parts: Any, role: str = "user") -> list[Mapping[str, Any]]:
    """Return a message of a thread as an item; none where it is empty."""
    if not parts:
        return []
    text = "output_text" if role == "assistant" else "input_text"
    content = [{**part, "type": text} if part.get("type") == "text" else part for part in parts]
    return [{"type": "message", "role": role, "content": content}]


def _function(tool: Tool) -> Mapping[str, Any]:
    # Not strict: strict mode refuses schemas with defaults, and the arguments are validated here in any case.
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": False,
    }


def _asked(response: ResponseBody) -> tuple[Asked, ...]:
    calls = tuple(Asked(call.call_id, call.name[:200], call.arguments) for call in response.calls)
    if len({call.call_id for call in calls}) < len(calls):
        raise unreadable("the provider gave two calls of one response the same call_id", creating=False)
    return calls


def _stopped_by(response: ResponseBody) -> str | None:
    if response.status != "incomplete":
        return None
    details = response.incomplete_details
    return details.reason[:100] if details else "unknown_reason"
