"""A model's tool calls put together from their pieces, as different servers send them.

OpenAI sends the id and the name first, then pieces of the arguments, each under the call's index. Other servers send a
whole call at once, without an index or all under index 0 (Ollama through LiteLLM, Gemini), arguments as an object, and
ids that are missing, or that they have given before. An id of ours takes the place of such: the ledger knows a call by
it, and an id that came twice would get the output of another call.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from worker.backends.foreground.chunks import CallPart
from worker.backends.transport.bodies import Ident
from worker.response import Asked

_IDENT = TypeAdapter(Ident)
_LONGEST_NAME = 200
_UNSAYABLE = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_SAYABLE = 64


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    rest: dict[str, Any] = field(default_factory=dict)

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)


class CallParts:
    """The calls of one answer, in the order in which they began."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._at: dict[int, _Call] = {}

    def add(self, part: CallPart) -> None:
        """Take the next piece."""
        call = self._calls[-1] if part.index is None and self._calls else self._at.get(part.index or 0)
        if call is None or _begins_another(part, call):
            call = _Call()
            self._calls.append(call)
        self._at[part.index or 0] = call
        call.id = call.id or part.id or ""
        call.rest |= part.model_extra or {}
        if part.function is not None:
            call.name = call.name or part.function.name or ""
            call.pieces.append(_text(part.function.arguments))

    def size(self) -> int:
        """Return the bytes that the model has written."""
        return sum(len(f"{call.name}{call.arguments}".encode()) for call in self._calls)

    def asked(self, known: Collection[str]) -> tuple[list[Asked], list[dict[str, Any]]]:
        """Return the calls, and as they go back to the server; ids that are `known` already are not theirs.

        ValueError says that one is without a name.
        """
        asked, items, taken = [], [], set(known)
        for call in self._calls:
            if not call.name:
                raise ValueError("the provider asks for a call without the name of a function")
            one = Asked(fresh(call.id, taken), call.name[:_LONGEST_NAME], call.arguments or "{}")
            taken.add(one.call_id)
            asked.append(one)
            function = given_back(one.name, one.arguments)
            items.append({"id": one.call_id, "type": "function", "function": function, **call.rest})
        return asked, items


def fresh(ident: str | None, taken: Collection[str]) -> str:
    """Return the id of a call, or one of ours where it has none that could be told from the others."""
    try:
        good = _IDENT.validate_python(ident)
    except ValidationError:
        good = ""
    return good if good and good not in taken else f"call_{uuid4().hex}"


def given_back(name: str, arguments: str) -> dict[str, str]:
    """Return a call's name and arguments as every server can take them back; good ones stay as they are.

    Models make up names, as `multi_tool_use.parallel`, and OpenAI refuses a conversation with one in each later request
    ("string does not match pattern", github.com/microsoft/semantic-kernel/issues/4447). Ollama and vLLM parse arguments
    and refuse where they are no JSON. The model learns from the call's output what was wrong.
    """
    return {
        "name": _UNSAYABLE.sub("_", name)[:_LONGEST_SAYABLE],
        "arguments": arguments if _is_object(arguments) else "{}",
    }


def _begins_another(part: CallPart, call: _Call) -> bool:
    """Tell whether a piece that could go on from a call begins the next one.

    Some servers repeat id and name with each piece, so a name alone says nothing while the arguments are not whole.
    """
    if part.function is None or not part.function.name:
        return False
    if part.id and call.id and part.id != call.id:
        return True
    return bool(part.function.arguments) and _is_object(call.arguments)


def _text(arguments: str | dict[str, Any] | None) -> str:
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments or ""


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
