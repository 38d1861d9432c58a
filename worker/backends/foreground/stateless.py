"""Responses of servers that keep nothing: Ollama, llama.cpp, OpenRouter, vLLM without its store.

The whole conversation goes out with each step, and what the model said is kept as it came, reasoning items too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, RootModel

from worker import tokens
from worker.assistants.prices import Prices
from worker.backends import forms
from worker.backends.base import Done, Ended, Failed, NeedsTools, Pending, Step
from worker.backends.foreground.call_parts import fresh, given_back
from worker.backends.places import PROTOCOLS
from worker.backends.responses.bodies import BegunEvent, ResponseBody, TextEvent
from worker.backends.responses.meaning import counted, meaning
from worker.backends.responses.requests import asked_items, message_items, settings
from worker.backends.responses.streams import BEGUN, ENDED, ERROR, TEXT
from worker.backends.transport.bodies import Kept, read
from worker.backends.transport.faults import reported
from worker.errors import ProviderError
from worker.response import Item, Usage

_ADDED, _ITEM = b"response.output_item.added", b"response.output_item.done"
# OpenAI's document says that reasoning comes encrypted by itself where nothing is stored; before it did so only where
# it was asked to, and models that do not reason refuse to be asked.
_ENCRYPTED = {"include": ["reasoning.encrypted_content"]}


class _Object(RootModel[Annotated[dict[str, Any], Kept]]):
    """A response as it came."""


class _Last(BaseModel):
    """The last event of a stream."""

    response: Annotated[dict[str, Any], Kept]


class _ItemDone(BaseModel):
    """An item of the output that is whole."""

    item: Annotated[dict[str, Any], Kept]


class Stateless:
    """The dialect of Responses without state."""

    can = PROTOCOLS["responses-stateless"]
    path = "/responses"

    def __init__(self, prices: Prices) -> None:
        self._prices = prices

    def said(self, message: Mapping[str, Any]) -> Sequence[Item]:
        """Return the message as an item."""
        return message_items(message["content"], message["role"])

    def asked(self, step: Step) -> list[Item]:
        """Return an item for each output, and the user's message."""
        return asked_items(step)

    def body(self, step: Step, items: Sequence[Item]) -> dict[str, Any]:
        """Return the request: as a stream, and to be kept nowhere."""
        reasons = step.config.get("reasoning_effort", "none") != "none"
        asked = {"input": list(items), "stream": True, "store": False}
        return {**settings(step), **(_ENCRYPTED if reasons else {}), **asked}

    def answer(self, step: Step, asked: Sequence[Item], sent: int) -> "Spoken":
        """Return what reads the response."""
        return Spoken(step, asked, sent, self._prices)


class Spoken:
    """A response, read for its text as it comes where somebody listens, and for its last event."""

    def __init__(self, step: Step, asked: Sequence[Item], sent: int, prices: Prices) -> None:
        """Begin with nothing; `sent` are the bytes of the request, for a server that does not count its tokens."""
        self.id: str | None = None
        self.begun = False
        self.wanted = BEGUN | ENDED | {ERROR, _ADDED, _ITEM, *([] if step.on_text is None else [TEXT])}
        self._step = step
        self._asked = asked
        self._sent = sent
        self._prices = prices
        self._items: list[dict[str, Any]] = []

    def take(self, name: bytes, data: bytes) -> Ended | None:
        """Read the data of one event; those that only say that the response exists do not say that it has begun."""
        try:
            if name in ENDED:
                return self._ended(read(data, _Last).response)
            if name == ERROR:
                return _told_to_fail(data)
            self._note(name, data)
        except ValueError as error:
            return Failed("bad_answer", str(error), Usage(), transient=True)
        return None

    def _note(self, name: bytes, data: bytes) -> None:
        if name in BEGUN:
            self.id = self.id or read(data, BegunEvent).response.id
            return
        self.begun = True
        if name == _ITEM:
            self._items.append(read(data, _ItemDone).item)
        elif name == TEXT and self._step.on_text is not None:
            self._step.on_text(read(data, TextEvent).delta)

    def whole(self, body: bytes) -> Ended:
        """Read a response in one piece; ValueError says what is wrong with it."""
        given = read(body, _Object).root
        if given.get("error") and "status" not in given:
            return _told_to_fail(body)
        return self._ended(given)

    def cut(self, code: str, message: str) -> Ended:
        """Fail: only its last event says that a response has ended."""
        return Failed(code, message, Usage(), transient=True)

    def _ended(self, given: dict[str, Any]) -> Ended:
        """Return what the response says; where its last event leaves the output out, it has come item by item."""
        if not given.get("output") and self._items:
            given = {**given, "output": self._items}
        output = self._told_apart(given.get("output") or [])
        response = read(json.dumps({**given, "output": output}).encode(), ResponseBody)
        self.id = self.id or response.id
        try:
            ended = meaning(response, counted(response, self._prices) or self._guessed(output))
        except ProviderError as error:
            raise ValueError(error.message) from None
        match ended:
            case NeedsTools():
                return replace(ended, last_item="", items=(*self._asked, *map(_given_back, output)))
            case Done():
                kept = (output if ended.stopped_by is None else _without_calls(output)) or _unsaid(ended.stopped_by)
                return replace(ended, last_item="", items=(*self._asked, *kept))
            case Pending():
                raise ValueError("the provider's answer is a response that has not ended")
        return ended

    def _told_apart(self, output: Any) -> list[Any]:
        """Give calls an id of ours where theirs is missing or was there before."""
        taken: set[str] = {
            str(item.get("call_id")) for item in self._step.history if item.get("type") == "function_call"
        }
        told = []
        for item in output if isinstance(output, list) else [output]:
            if isinstance(item, dict) and item.get("type") == "function_call":
                told.append({**item, "call_id": fresh(item.get("call_id"), taken)})
                taken.add(told[-1]["call_id"])
            else:
                told.append(item)
        return told

    def _guessed(self, output: Sequence[Any]) -> Usage:
        used = tokens.guessed(self._sent), sum(map(tokens.of, output))
        return Usage(*used, self._prices.cost(self._step.config["model"], *used))


def _given_back(item: dict[str, Any]) -> dict[str, Any]:
    return item | given_back(item["name"], item["arguments"]) if item.get("type") == "function_call" else item


def _without_calls(output: list[Any]) -> list[Any]:
    """Return what a cut answer leaves: no call without its output, no reasoning without what it led to."""
    kept = [item for item in output if item.get("type") != "function_call"]
    while kept and kept[-1].get("type") != "message":
        kept.pop()
    return kept


def _unsaid(stopped_by: str | None) -> Sequence[Item]:
    return message_items([{"type": "text", "text": forms.unsaid(stopped_by)}], "assistant")


def _told_to_fail(data: bytes) -> Failed:
    error = reported(data)
    return Failed(error.code, error.message, Usage(), error.transient)
