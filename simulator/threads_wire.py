"""Shapes of Assistants v2 as recorded from api.openai.com: assistants, threads, messages, runs and their steps."""

import secrets
import string
from typing import Any

from simulator.wire import JsonObject

_LETTERS = string.ascii_letters + string.digits


def new_id(prefix: str) -> str:
    """Return an id as `asst_`, `thread_`, `msg_`, `run_` and `step_` have them: 24 letters and digits."""
    return f"{prefix}_" + "".join(secrets.choice(_LETTERS) for _ in range(24))


def assistant_object(ident: str, created: float, given: JsonObject) -> JsonObject:
    """Return an assistant, with OpenAI's defaults for what was not given."""
    get = given.get
    return {
        "id": ident,
        "object": "assistant",
        "created_at": int(created),
        "name": get("name"),
        "description": get("description"),
        "model": get("model"),
        "instructions": get("instructions"),
        "tools": get("tools") or [],
        "top_p": _number(get("top_p")),
        "temperature": _number(get("temperature")),
        "reasoning_effort": get("reasoning_effort"),
        "tool_resources": get("tool_resources") or {},
        "metadata": get("metadata") or {},
        "response_format": get("response_format") or "auto",
    }


def _number(value: float | None) -> float:
    return 1.0 if value is None else value


def thread_object(ident: str, created: float, metadata: JsonObject, tool_resources: JsonObject) -> JsonObject:
    """Return a thread."""
    times = {"created_at": int(created), "metadata": metadata, "tool_resources": tool_resources}
    return {"id": ident, "object": "thread", **times}


def message_object(ident: str, thread_id: str, created: float, given: JsonObject, run: JsonObject) -> JsonObject:
    """Return a message; `run` holds what only the message of a run has: its assistant, run and state."""
    content = given["content"]
    parts = [_text(content)] if isinstance(content, str) else [_part(part) for part in content]
    return {
        "id": ident,
        "object": "thread.message",
        "created_at": int(created),
        "assistant_id": None,
        "thread_id": thread_id,
        "run_id": None,
        "role": given["role"],
        "content": parts,
        "attachments": given.get("attachments") or [],
        "metadata": given.get("metadata") or {},
        **run,
    }


def _text(value: str) -> JsonObject:
    return {"type": "text", "text": {"value": value, "annotations": []}}


def _part(part: JsonObject) -> JsonObject:
    return _text(part["text"]) if part["type"] == "text" else part


def text_of(message: JsonObject) -> str:
    """Return the text of a message."""
    return "\n\n".join(part["text"]["value"] for part in message["content"] if part["type"] == "text")


def run_settings(assistant: JsonObject, request: JsonObject) -> JsonObject:
    """Return what a run shows of its settings: the request's, and the assistant's where it says nothing."""

    def either(name: str) -> Any:
        return assistant[name] if request.get(name) is None else request[name]

    said = [either("instructions"), request.get("additional_instructions")]
    return {
        "model": either("model"),
        "instructions": " ".join(one for one in said if one),
        "tools": either("tools"),
        "tool_resources": assistant["tool_resources"],
        "temperature": either("temperature"),
        "top_p": either("top_p"),
        "reasoning_effort": either("reasoning_effort"),
        "max_completion_tokens": request.get("max_completion_tokens"),
        "max_prompt_tokens": request.get("max_prompt_tokens"),
        "truncation_strategy": {"last_messages": None, **(request.get("truncation_strategy") or {"type": "auto"})},
        "response_format": either("response_format"),
        "tool_choice": request.get("tool_choice") or "auto",
        "parallel_tool_calls": request.get("parallel_tool_calls") is not False,
    }


def usage(counted: list[JsonObject]) -> JsonObject:
    """Return the sum of the model's usages, under the names of this protocol."""
    read, written = (sum(one[name] for one in counted) for name in ("input_tokens", "output_tokens"))
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_token_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def deleted(ident: str, kind: str) -> JsonObject:
    """Return what a deletion answers; `kind` is assistant, thread or thread.message."""
    return {"id": ident, "object": f"{kind}.deleted", "deleted": True}
