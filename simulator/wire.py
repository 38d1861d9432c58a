"""OpenAI's shapes as recorded from api.openai.com: ids, items, response objects, lists, headers."""

import itertools
import math
import secrets
import string
import time
from typing import Any

JsonObject = dict[str, Any]

# Families as GET /v1/models lists them, and the dated name under which a response reports each (recorded); the last is
# that of the shipped assistants, of which no dated name was seen.
MODELS = {
    "gpt-5.6": "gpt-5.6-sol",
    "gpt-5": "gpt-5-2025-08-07",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-6-luna": "gpt-6-luna",
}
HOSTED = ("code_interpreter", "file_search")
"""The tools of the provider's own that are simulated."""
_LETTERS = string.ascii_letters + string.digits
_NO_IMAGES = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "total_tokens": 0,
}
_LIMITS = {"requests": 10_000, "tokens": 30_000_000}
_requests_seen = itertools.count(1)


def new_id(prefix: str) -> str:
    """Return an id as `resp_`, `msg_` and `fc_` have them: 16 hex, 00, the time in hex, 24 hex."""
    return f"{prefix}_{secrets.token_hex(8)}00{int(time.time()):08x}{secrets.token_hex(12)}"


def new_conversation_id() -> str:
    """Return a conversation's id: the time in hex and 40 hex."""
    return f"conv_{int(time.time()):08x}{secrets.token_hex(20)}"


def new_call_id() -> str:
    """Return a function call's id: 24 letters and digits."""
    return "call_" + "".join(secrets.choice(_LETTERS) for _ in range(24))


def tokens(text: str) -> int:
    """Estimate the tokens of a text: four characters each."""
    return math.ceil(len(text) / 4)


def message_item(role: str, text: str, status: str = "completed", cites: list[JsonObject] | None = None) -> JsonObject:
    """Return a message with one text part, and the files that it cites."""
    part = _text_part(role, text) | ({"annotations": cites} if cites else {})
    return {"id": new_id("msg"), "type": "message", "status": status, "role": role, "content": [part]}


def function_call_item(name: str, arguments: str) -> JsonObject:
    """Return a function call that the model makes."""
    ids = {"id": new_id("fc"), "call_id": new_call_id()}
    return {**ids, "type": "function_call", "status": "completed", "name": name, "arguments": arguments}


def stored_item(given: JsonObject) -> JsonObject:
    """Return an input item as the server keeps it: with an id, a status and content parts."""
    if given.get("type", "message") == "message":
        return _stored_message(given)
    prefix = {"function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}.get(given["type"], "item")
    return {"status": "completed", **given, "id": given.get("id") or new_id(prefix)}


def _stored_message(given: JsonObject) -> JsonObject:
    role, content = given["role"], given["content"]
    parts = [_text_part(role, content)] if isinstance(content, str) else [_stored_part(part) for part in content]
    ident = given.get("id") or new_id("msg")
    return {"id": ident, "type": "message", "status": "completed", "role": role, "content": parts}


def _stored_part(part: JsonObject) -> JsonObject:
    return {"annotations": [], "logprobs": [], **part} if part.get("type") == "output_text" else part


def _text_part(role: str, text: str) -> JsonObject:
    if role == "assistant":
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    return {"type": "input_text", "text": text}


def response_object(request: JsonObject, state: JsonObject) -> JsonObject:
    """Return the response object: what was asked, echoed with OpenAI's defaults, and how far it has come."""
    body: JsonObject = {
        "id": state["id"],
        "object": "response",
        "created_at": state["created_at"],
        "status": state["status"],
        "background": bool(request.get("background")),
        "completed_at": state["completed_at"],
        "error": state["error"],
        "incomplete_details": state["incomplete_details"],
        "model": MODELS.get(request["model"], request["model"]),
        "output": state["output"],
        "usage": state["usage"],
        "metadata": labelled(request.get("metadata")),
        "service_tier": _service_tier(request, state["status"]),
        "moderation": None,
        "tool_usage": {"image_gen": _NO_IMAGES, "web_search": {"num_requests": 0}},
        **_echo(request),
    }
    if request.get("conversation"):
        body["conversation"] = {"id": conversation_id(request)}
    if state["status"] not in ("queued", "in_progress"):
        body["billing"] = {"payer": "developer"}
    return body


def _echo(request: JsonObject) -> JsonObject:
    """Return the settings of the request; an explicit null reads as absent."""
    get = request.get
    return {
        "frequency_penalty": get("frequency_penalty") or 0.0,
        "instructions": get("instructions"),
        "max_output_tokens": get("max_output_tokens"),
        "max_tool_calls": get("max_tool_calls"),
        "parallel_tool_calls": get("parallel_tool_calls") is not False,
        "presence_penalty": get("presence_penalty") or 0.0,
        "previous_response_id": get("previous_response_id"),
        "prompt_cache_key": get("prompt_cache_key"),
        "prompt_cache_retention": get("prompt_cache_retention"),
        "reasoning": {"effort": None, "summary": None, **(get("reasoning") or {})},
        "safety_identifier": get("safety_identifier"),
        "store": get("store") is not False,
        "temperature": _number(get("temperature"), 1.0),
        "text": {"format": {"type": "text"}, "verbosity": "medium", **(get("text") or {})},
        "tool_choice": get("tool_choice") or "auto",
        "tools": [_echoed_tool(tool) for tool in get("tools") or []],
        "top_logprobs": get("top_logprobs") or 0,
        "top_p": _number(get("top_p"), 1.0),
        "truncation": get("truncation") or "disabled",
        "user": get("user"),
    }


def _number(value: float | None, default: float) -> float:
    return default if value is None else value


def _echoed_tool(tool: JsonObject) -> JsonObject:
    if tool.get("type") != "function":
        return tool
    strict = tool.get("strict") is not False
    return {"description": None, "output_schema": None, "parameters": None, **tool, "strict": strict}


def _service_tier(request: JsonObject, status: str) -> str:
    asked = str(request.get("service_tier") or "auto")
    return "default" if asked == "auto" and status not in ("queued", "in_progress") else asked


def labelled(metadata: JsonObject | None) -> JsonObject:
    """Say in the metadata that the response is simulated, where the client's pairs leave room."""
    given = metadata or {}
    return dict(given) if len(given) >= 16 else {"simulated": "true", **given}


def conversation_id(request: JsonObject) -> str | None:
    """Return the conversation that a request names, given as an id or as {"id": …}."""
    given = request.get("conversation")
    return given["id"] if isinstance(given, dict) else given


def usage(input_tokens: int, output_tokens: int) -> JsonObject:
    """Return a usage object."""
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input_tokens + output_tokens,
    }


def item_list(items: list[JsonObject], has_more: bool) -> JsonObject:
    """Return one page of items."""
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    return {"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": has_more}


def model_object(name: str) -> JsonObject:
    """Return a model as /v1/models lists it."""
    return {"id": name, "object": "model", "created": 1_715_367_049, "owned_by": "system"}


def headers(started: float) -> dict[str, str]:
    """Return the headers of every answer; `started` is a time.perf_counter() reading."""
    return {
        "x-request-id": f"req_{secrets.token_hex(16)}",
        "openai-version": "2020-10-01",
        "openai-processing-ms": str(int((time.perf_counter() - started) * 1000)),
    }


def unlimited() -> dict[str, str]:
    """Return headers of limits that nobody enforces, for what counts towards none; a create has those of its own."""
    used = next(_requests_seen) % _LIMITS["requests"]
    return {
        "x-ratelimit-limit-requests": str(_LIMITS["requests"]),
        "x-ratelimit-remaining-requests": str(_LIMITS["requests"] - used),
        "x-ratelimit-reset-requests": "6ms",
        "x-ratelimit-limit-tokens": str(_LIMITS["tokens"]),
        "x-ratelimit-remaining-tokens": str(_LIMITS["tokens"] - used),
        "x-ratelimit-reset-tokens": "0s",
    }
