"""Conversations and responses, and the rules between them: the lock, poisoned conversations, what is kept."""

import time
from collections.abc import Callable
from typing import Any

from simulator import errors, validation
from simulator.conversations import Conversation
from simulator.counters import Counters
from simulator.faults import Faults
from simulator.model import reply_to
from simulator.prompt import Prompt
from simulator.reading import item_text
from simulator.responses import Response, outcome_of
from simulator.wire import JsonObject, conversation_id, message_item, new_conversation_id, new_id, stored_item


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

    def create_response(self, request: JsonObject) -> Response:
        """Accept a response, or raise ApiError."""
        validation.check_create(request)
        now = self.clock()
        conversation = self._free_conversation(request, now)
        history = self._history(request, conversation)
        inputs = self._inputs(request.get("input"), conversation)
        _check_calls(history, inputs)
        response = self._accept(request, history, inputs, now)
        if conversation is not None:
            conversation.active.append(response)
        if request.get("store") is not False or request.get("background"):
            self.responses[response.id] = response
        return response

    def _accept(self, request: JsonObject, history: list[JsonObject], inputs: list[JsonObject], now: float) -> Response:
        metadata = request.get("metadata") or {}
        items = history + inputs
        attempt = self.counters.attempt(metadata.get("run_id"))
        reply = reply_to(Prompt.of(request, items, attempt))
        read = (request.get("instructions") or "") + "".join(map(item_text, items))
        seconds = self.faults.latency() if reply.latency is None else reply.latency
        ends = float("inf") if reply.hangs else now + seconds
        outcome = outcome_of(reply, request, read)
        response = Response(new_id("resp"), request, history, inputs, outcome, now, ends)
        self.counters.began(response.id, metadata, conversation_id(request), now, ends)
        return response

    def _free_conversation(self, request: JsonObject, now: float) -> Conversation | None:
        ident = conversation_id(request)
        if not ident:
            return None
        conversation = self.conversation(ident)
        if conversation.active:
            raise errors.conversation_locked()
        return conversation

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

    def run_of(self, ident: str) -> str | None:
        """Return the client run that a response belongs to, if it is known."""
        response = self.responses.get(ident)
        return response.run_id if response else None

    def cancel_response(self, ident: str) -> Response:
        """Cancel a background response; one that has ended stays as it is."""
        response = self.response(ident)
        if not response.request.get("background"):
            raise errors.ApiError(400, "Cannot cancel a synchronous response.", name="not_background")
        self.stop(response)
        return response

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
        conversation.settle(self.clock())
        return conversation

    def add_items(self, ident: str, items: Any) -> list[JsonObject]:
        """Append up to 20 items to a conversation."""
        conversation = self.conversation(ident)
        validation.check_items(items, "items", at_most=20)
        stored = [stored_item(item) for item in items]
        conversation.add(stored)
        return stored

    def item(self, ident: str, item_id: str) -> JsonObject:
        """Return one item of a conversation, or raise ApiError."""
        items = self.conversation(ident).items
        if item_id not in items:
            message = f"Item with id '{item_id}' not found in conversation."
            raise errors.ApiError(404, message, name="not_found")
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
