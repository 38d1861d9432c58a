"""OpenAI's Responses in background mode: a run is a chain of stored responses on one conversation per thread.

A response that wants functions is `completed` with function_call items, so each step of a run is a response of its own.
A conversation takes one response at a time (400 conversation_locked). Creating is not idempotent and the SDK repeats
a POST by itself, sending no idempotency key (openai 3.54, _base_client.py), so its retries are off.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
import openai
from pydantic import BaseModel

from tools.registry import Tool
from worker.backends import items
from worker.backends.base import Created, Done, Ended, Failed, Look, NeedsTools, Pending, Step, Tail
from worker.backends.bodies import ItemsBody, Named, ResponseBody, clean, read
from worker.backends.faults import TRANSIENT_CODES, explain, unreadable
from worker.errors import ProviderError, SettingsError
from worker.prices import Prices
from worker.response import Asked, Usage

Body = TypeVar("Body", bound=BaseModel)
Request = Callable[[], Awaitable[httpx2.Response]]
# Keys of an assistant's configuration that Responses takes as they are.
_AS_IS = (
    "model",
    "instructions",
    "temperature",
    "top_p",
    "max_output_tokens",
    "parallel_tool_calls",
    "tool_choice",
    "truncation",
    "service_tier",
)
_ITEMS = 20  # the most that one request may add to a conversation (openai 3.54, conversation_create_params.py)
_GOING_ON = frozenset({"queued", "in_progress"})


class ResponsesBackend:
    """Speaks to one server with one key; short requests share a bound, since thousands at once collapse.

    Bodies go out and come in as they are: the SDK's own models cost most of a request's CPU, and check nothing.
    """

    def __init__(self, *, api_key: str, base_url: str | None, requests: int, timeout: float, prices: Prices) -> None:
        """Make no connection yet; `timeout` (seconds) is for one request, `requests` bounds those open at once."""
        if not (api_key.isascii() and api_key.isprintable()):
            raise SettingsError("OPENAI_API_KEY: holds a character that no HTTP header can carry, such as a line break")
        limits = httpx2.Limits(max_connections=requests, max_keepalive_connections=requests)
        # A redirected POST would be sent twice.
        http = openai.DefaultAsyncHttpxClient(limits=limits, timeout=timeout, follow_redirects=False)
        self._client = openai.AsyncOpenAI(
            api_key=api_key, base_url=base_url, max_retries=0, timeout=timeout, http_client=http
        )
        self._bound = asyncio.Semaphore(requests)
        # A server that trickles its answer never meets a limit on one read; connecting has had its own by then.
        self._longest = 2 * timeout
        self._prices = prices

    async def open_conversation(self, thread_id: str, history: Sequence[Mapping[str, Any]] = ()) -> str:
        """Create the thread's conversation; an answer that is lost leaves one behind that nobody uses or pays for."""
        said = [item for message in history for item in _message(message["content"], message["role"])]
        body = {"metadata": {"thread_id": thread_id[:512]}, **({"items": said[:_ITEMS]} if said else {})}
        conversation = (await self._ask(self._post("/conversations", body), Named)).id
        for start in range(_ITEMS, len(said), _ITEMS):
            more = {"items": said[start : start + _ITEMS]}
            await self._send(self._post(f"{_conversation(conversation)}/items", more))
        return conversation

    def slot(self) -> AbstractAsyncContextManager[None]:
        """Return the bound that all requests share."""
        return self._bound

    async def create(self, step: Step) -> Created:
        """Create the step's response once; background and store are always explicit."""
        response = await self._send(self._post("/responses", _body(step)), creating=True)
        return Created(_read(response, Named, creating=True).id, response.headers.get("x-request-id"))

    async def adopt(self, step: Step, after: str) -> Ended | None:
        """Find the step's result among the items that responses add to a conversation when they have ended.

        There is no list of responses and no idempotent create (openai 3.54), so this is the one trace of a lost answer.
        """
        found = items.answer_to(_input(step), await self._items(step.conversation, after))
        ended = None if found is None else _meaning(found, Usage())
        return None if isinstance(ended, Pending) else ended

    async def tail(self, conversation: str) -> Tail:
        """Read the newest hundred items; what is open further back would have kept the conversation from going on."""
        newest = await self._ask(self._get(f"{_conversation(conversation)}/items?order=desc&limit=100"), ItemsBody)
        return items.tail(newest.data)

    async def _items(self, conversation: str, after: str) -> list[Any]:
        found: list[Any] = []
        while True:
            since = f"&after={quote(after, safe='')}" if after else ""
            path = f"{_conversation(conversation)}/items?order=asc&limit=100{since}"
            page = await self._ask(self._get(path), ItemsBody)
            found += page.data
            if not page.has_more or not page.last_id or page.last_id == after:
                return found
            after = page.last_id

    async def look(self, provider_id: str) -> Look:
        """Retrieve the response and say what it means."""
        response = await self._ask(self._get(_path(provider_id)), ResponseBody)
        return _meaning(response, self._usage(response))

    async def cancel(self, provider_id: str) -> None:
        """Cancel the response; one that has ended already is left as it is."""
        path = f"{_path(provider_id)}/cancel"
        try:
            await self._send(lambda: self._client.post(path, cast_to=httpx2.Response))
        except ProviderError as error:
            if error.transient:
                raise

    async def delete_conversation(self, conversation: str) -> None:
        """Delete the conversation with its items; one that the provider does not know is as good as deleted."""

        async def delete() -> httpx2.Response:
            try:
                return await self._client.delete(_conversation(conversation), cast_to=httpx2.Response)
            except openai.NotFoundError as error:
                return error.response

        await self._send(delete)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _get(self, path: str) -> Request:
        return lambda: self._client.get(path, cast_to=httpx2.Response)

    def _post(self, path: str, body: Mapping[str, Any]) -> Request:
        try:
            content = json.dumps(clean(body), ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ProviderError("invalid_request", f"the request cannot be written as JSON: {error}") from None
        headers = {"Content-Type": "application/json"}
        return lambda: self._client.post(path, content=content, cast_to=httpx2.Response, options={"headers": headers})

    async def _ask(self, request: Request, kind: type[Body]) -> Body:
        return _read(await self._send(request), kind)

    async def _send(self, request: Request, *, creating: bool = False) -> httpx2.Response:
        # The caller of create holds a slot already: it commits its intent inside, directly before the request.
        async with nullcontext() if creating else self._bound:
            try:
                async with asyncio.timeout(self._longest):
                    return await request()
            except Exception as error:  # noqa: BLE001 - whatever a server makes the client raise, nothing else may leave
                # Without the cause: its text may repeat the key that the server was given.
                raise explain(error, creating=creating) from None

    def _usage(self, response: ResponseBody) -> Usage:
        if response.usage is None:
            return Usage()
        counted = response.usage.input_tokens, response.usage.output_tokens
        return Usage(*counted, self._prices.cost(response.model or "", *counted))


def _read(response: httpx2.Response, kind: type[Body], *, creating: bool = False) -> Body:
    try:
        return read(response.content, kind)
    except ValueError as error:
        raise unreadable(str(error), creating=creating) from None


def _meaning(response: ResponseBody, usage: Usage) -> Look:
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
    body: dict[str, Any] = {key: config[key] for key in _AS_IS if key in config}
    if "reasoning_effort" in config:
        body["reasoning"] = {"effort": config["reasoning_effort"]}
    if "response_format" in config:
        body["text"] = {"format": config["response_format"]}
    if step.tools:
        body["tools"] = [_function(tool) for tool in step.tools]
    return {
        **body,
        "input": _input(step),
        "conversation": step.conversation,
        "background": True,
        "store": True,
        "metadata": {"run_id": step.run_id, "attempt": str(step.attempt), "step": str(step.number)},
    }


def _input(step: Step) -> list[Mapping[str, Any]]:
    answers = [{"type": "function_call_output", "call_id": a.call_id, "output": a.output} for a in step.answers]
    return [*answers, *_message(step.input)]


def _message(parts: Any, role: str = "user") -> list[Mapping[str, Any]]:
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
