"""Conversations and responses, and the rules between them: the lock, poisoned conversations, what is kept."""

import dataclasses
import json
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from simulator import errors, validation
from simulator.conversations import Conversation
from simulator.counters import Counters
from simulator.faults import Faults, Trouble
from simulator.limits import Limits
from simulator.model import Reply, reply_to
from simulator.prompt import Prompt
from simulator.reading import item_text
from simulator.responses import Response, outcome_of, times
from simulator.wire import JsonObject, conversation_id, message_item, new_conversation_id, new_id, stored_item

_STREAMED = 300.0  # seconds for which a response's events can be had (provider-facts 1.2)


@dataclasses.dataclass(frozen=True, slots=True)
class Asking:
    """A create that may be accepted, and what its model says to it."""

    request: JsonObject
    conversation: Conversation | None
    history: list[JsonObject]
    inputs: list[JsonObject]
    reply: Reply

    @property
    def metadata(self) -> dict[str, str]:
        """The client's pairs."""
        return self.request.get("metadata") or {}


class Provider:
    """The state of one simulator; `clock` returns seconds since the epoch."""

    def __init__(self, faults: Faults, clock: Callable[[], float] = time.time) -> None:
        self.faults = faults
        self.clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget everything, counters included; the settings stay."""
        self.counters = Counters()
        self.conversations: dict[str, Conversation] = {}
        self.responses: dict[str, Response] = {}
        self.limits = Limits(lambda: self.faults.settings, self.clock)
        self._troubled: Counter[tuple[str, str, int]] = Counter()
        self._shared: dict[str, Any] = {}

    def create_response(self, request: JsonObject) -> Response:
        """Accept a response, or raise ApiError."""
        return self.accept(self.asked(request))

    def asked(self, request: JsonObject) -> Asking:
        """Return what a create asks for, with nothing done yet; ApiError where it is refused."""
        if self.faults.settings.stateless:
            request = validation.stateless(request)
        validation.check_create(request, any_model=self.faults.settings.stateless)
        conversation = self._free_conversation(request)
        history = self._history(request, conversation)
        inputs = self._inputs(request.get("input"), conversation)
        _check_calls(history, inputs)
        attempt = self.counters.attempt((request.get("metadata") or {}).get("run_id"))
        return Asking(request, conversation, history, inputs, reply_to(Prompt.of(request, history + inputs, attempt)))

    def accept(self, asking: Asking) -> Response:
        """Begin the response, and keep it."""
        request, response = asking.request, self.begin(asking)
        self.counters.began(response.id, asking.metadata, conversation_id(request), response.created, response.ends)
        self.counters.answered(response, response.created)
        if asking.conversation is not None:
            asking.conversation.active.append(response)
        if request.get("store") is not False or request.get("background"):
            self.responses[response.id] = response
        return response

    def begin(self, asking: Asking) -> Response:
        """Let the model begin; nobody but the caller knows of the response."""
        request, now = asking.request, self.clock()
        read = (request.get("instructions") or "") + "".join(map(item_text, asking.history + asking.inputs))
        reply, starts, ends = self._course(asking, now)
        outcome = outcome_of(reply, request, read)
        inputs = asking.inputs
        return Response(new_id("resp"), self._slim(request), asking.history, inputs, outcome, now, starts, ends)

    def _slim(self, request: JsonObject) -> JsonObject:
        """Return the request with one copy of equal tools and instructions: they are most of a response's memory."""
        large = {name: request[name] for name in ("tools", "instructions") if request.get(name)}
        return {**request, **{name: self._shared.setdefault(json.dumps(one), one) for name, one in large.items()}}

    def _course(self, asking: Asking, now: float) -> tuple[Reply, float, float]:
        """Return the reply, and when the response starts and ends, after whatever befalls it."""
        settings, reply = self.faults.settings, asking.reply
        seconds = self.faults.latency() if reply.latency is None else reply.latency
        fate = self.faults.fate()
        if fate == "failed":
            reply = dataclasses.replace(reply, failure=(settings.fail_code, "The simulator was told to fail."))
        queued = settings.queued_seconds if reply.queued is None else reply.queued
        if fate == "stuck" or self.trouble(asking, "stuck"):
            queued = math.inf
        return reply, *times(now, queued, math.inf if reply.hangs else seconds)

    def trouble(self, asking: Asking, *kinds: str) -> Trouble | None:
        """Return the first trouble of these kinds that a directive still wants for this create, and count it."""
        run_id = asking.metadata.get("run_id")
        for trouble in asking.reply.troubles:
            if trouble.kind not in kinds:
                continue
            if run_id is None:
                return trouble
            self._troubled[run_id, trouble.kind, trouble.at] += 1
            if self._troubled[run_id, trouble.kind, trouble.at] <= trouble.times:
                return trouble
        return None

    def _free_conversation(self, request: JsonObject) -> Conversation | None:
        ident = conversation_id(request)
        if not ident:
            return None
        conversation = self.conversation(ident)
        if self._is_locked(conversation):
            raise errors.conversation_locked()
        return conversation

    def _is_locked(self, conversation: Conversation) -> bool:
        now, queued_locks = self.clock(), self.faults.settings.lock_while_queued
        return any(queued_locks or response.status(now) != "queued" for response in conversation.active)

    def _history(self, request: JsonObject, conversation: Conversation | None) -> list[JsonObject]:
        if conversation is not None:
            return list(conversation.items.values())
        previous_id = request.get("previous_response_id")
        if not previous_id:
            return []
        previous = self.responses.get(previous_id)
        if previous is None:
            raise errors.previous_not_found(previous_id)
        return previous.history + previous.inputs + previous.output(self.clock())

    def _inputs(self, given: str | list[JsonObject] | None, conversation: Conversation | None) -> list[JsonObject]:
        if isinstance(given, str):
            return [message_item("user", given)]
        known = conversation.items if conversation else {}
        return [_resolved(item, known) for item in given or []]

    def response(self, ident: str) -> Response:
        """Return a response, or raise ApiError."""
        if ident not in self.responses:
            raise errors.not_found("Response", ident)
        return self.responses[ident]

    def streamed(self, ident: str) -> Response:
        """Return a response whose events can be had once more, or raise ApiError."""
        response = self.response(ident)
        for name in ("background", "stream"):
            if not response.request.get(name):
                raise errors.not_streamed(f"cannot be streamed because it was not created with {name}=true")
        if self.clock() - response.created > _STREAMED:
            raise errors.not_streamed("can no longer be streamed because it is more than 5 minutes old")
        return response

    def run_of(self, ident: str) -> str | None:
        """Return the client run that a response belongs to, if it is known."""
        response = self.responses.get(ident)
        return response.run_id if response else None

    def cancel_response(self, ident: str) -> Response:
        """Cancel a background response; one that has ended stays as it is, and so may one that has not."""
        response = self.response(ident)
        if not response.request.get("background"):
            raise errors.ApiError(400, "Cannot cancel a synchronous response.", name="not_background")
        if self.faults.settings.cancel_completes:
            self._complete(response)
        else:
            self.stop(response)
        return response

    def _complete(self, response: Response) -> None:
        """Let a response that would never end do so; every other goes on as it was."""
        now = self.clock()
        if response.ends == math.inf:
            response.starts, response.ends = now, now + self.faults.latency()
            self.counters.cut(response.id, response.run_id, conversation_id(response.request), response.ends)

    def stop(self, response: Response) -> None:
        """End a response now: it was cancelled, deleted, or its client went away."""
        now = self.clock()
        if response.cancel(now):
            self.counters.cut(response.id, response.run_id, conversation_id(response.request), now)

    def delete_response(self, ident: str) -> JsonObject:
        """Forget a response."""
        self.stop(self.response(ident))
        del self.responses[ident]
        return {"id": ident, "object": "response", "deleted": True}

    def create_conversation(self, request: JsonObject) -> Conversation:
        """Begin a conversation, with up to 20 items."""
        validation.check_metadata(request.get("metadata"))
        items = request.get("items") or []
        validation.check_items(items, "items", at_most=20)
        conversation = Conversation(new_conversation_id(), int(self.clock()), request.get("metadata") or {})
        conversation.add([stored_item(item) for item in items])
        self.conversations[conversation.id] = conversation
        return conversation

    def conversation(self, ident: str) -> Conversation:
        """Return a conversation with everything that has ended on it taken in, or raise ApiError."""
        if ident not in self.conversations:
            raise errors.not_found("Conversation", ident)
        conversation = self.conversations[ident]
        conversation.settle(self.clock(), self.faults.settings.items_on_failure)
        return conversation

    def add_items(self, ident: str, items: Any) -> list[JsonObject]:
        """Append up to 20 items to a conversation."""
        conversation = self.conversation(ident)
        validation.check_items(items, "items", at_most=20)
        if self.faults.settings.items_lock and self._is_locked(conversation):
            raise errors.conversation_locked()
        stored = [stored_item(item) for item in items]
        conversation.add(stored)
        return stored

    def item(self, ident: str, item_id: str) -> JsonObject:
        """Return one item of a conversation, or raise ApiError."""
        items = self.conversation(ident).items
        if item_id not in items:
            raise errors.item_not_found(item_id)
        return items[item_id]


def _resolved(item: JsonObject, known: dict[str, JsonObject]) -> JsonObject:
    if item.get("type") != "item_reference":
        return stored_item(item)
    if item["id"] not in known:
        raise errors.not_found("Item", item["id"])
    return known[item["id"]]


def _check_calls(history: list[JsonObject], inputs: list[JsonObject]) -> None:
    """Refuse a call without its output and an output without its call."""
    items = history + inputs
    calls = {item["call_id"]: None for item in items if item["type"] == "function_call"}
    outputs = {item["call_id"]: None for item in items if item["type"] == "function_call_output"}
    for call_id in outputs:
        if call_id not in calls:
            raise errors.no_tool_call(call_id)
    for call_id in calls:
        if call_id not in outputs:
            raise errors.no_tool_output(call_id)
