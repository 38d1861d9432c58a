"""What a conversation's items say of a response whose id was never learnt, and of how the conversation ends."""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError

from worker.backends.base import Tail
from worker.backends.responses.bodies import ResponseBody
from worker.response import Item

_ASKED = frozenset({"function_call_output"})


def answer_to(asked: Sequence[Item], items: Iterable[Item]) -> ResponseBody | None:
    """Return what followed exactly this input, as the response it was; None where it is not there, or not whole.

    Outputs for calls that are not in the input are passed over: they repaired what a failed response left behind.
    """
    ours = {item["call_id"] for item in asked if item["type"] in _ASKED}
    there = [item for item in items if item.get("type") not in _ASKED or item.get("call_id") in ours]
    given, output = there[: len(asked)], there[len(asked) :]
    if [*map(_said, given)] != [*map(_said, asked)] or not any(map(_ends, output)) or any(map(_is_input, output)):
        return None
    status = "incomplete" if any(item.get("status") == "incomplete" for item in output) else "completed"
    try:
        return ResponseBody.model_validate({"id": "adopted", "status": status, "output": output})
    except ValidationError:
        return None


def tail(newest_first: Sequence[Item]) -> Tail:
    """Return the newest item and the calls without an output, oldest first."""
    answered = {item.get("call_id") for item in newest_first if item.get("type") in _ASKED}
    calls = [str(item.get("call_id")) for item in newest_first if item.get("type") == "function_call"]
    open_calls = tuple(call for call in reversed(calls) if call not in answered)
    return Tail(str(newest_first[0].get("id") or "") if newest_first else "", open_calls)


def _said(item: Item) -> tuple[Any, ...]:
    """Return what makes an input item the one we sent: the server adds ids and annotations of its own."""
    if item.get("type") in _ASKED:
        return (item.get("type"), item.get("call_id"))
    content = item.get("content")
    parts = [_part(part) for part in content] if isinstance(content, list) else [content]
    return (item.get("type"), item.get("role"), *parts)


def _part(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    return part.get("text") if part.get("type") in ("input_text", "text") else part.get("type")


def _ends(item: Item) -> bool:
    return item.get("type") == "function_call" or (item.get("type") == "message" and item.get("role") == "assistant")


def _is_input(item: Item) -> bool:
    return item.get("type") in _ASKED or (item.get("type") == "message" and item.get("role") != "assistant")
