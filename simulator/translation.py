"""The older protocols' tools, tool choice and formats, as Responses has them: one model answers on all protocols."""

from typing import Any

from simulator.wire import JsonObject


def flat_tools(tools: list[JsonObject] | None) -> list[JsonObject]:
    """Return tools with a function's name and parameters beside its type; others stay as they are."""
    return [_flat(tool) for tool in tools or []]


def _flat(tool: JsonObject) -> JsonObject:
    return {"type": "function", **tool["function"]} if tool.get("type") == "function" else tool


def flat_choice(choice: Any) -> Any:
    """Return a tool choice: a word as it is, a function by its name, allowed tools with their mode."""
    if not isinstance(choice, dict):
        return choice
    allowed = choice.get("allowed_tools")
    if allowed:
        return {"type": "allowed_tools", "mode": allowed["mode"], "tools": flat_tools(allowed["tools"])}
    return _flat(choice)


def text_format(response_format: Any) -> JsonObject:
    """Return what `text.format` would say; null and Assistants' `auto` are plain text."""
    if not isinstance(response_format, dict):
        return {"type": "text"}
    return {"type": response_format["type"], **(response_format.get("json_schema") or {})}
