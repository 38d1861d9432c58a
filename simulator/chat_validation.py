"""What OpenAI refuses in a chat completion, in its words (error bodies quoted in public bug reports)."""

from typing import Any

from simulator.errors import ApiError, invalid, missing
from simulator.kinds import ARRAY, COUNT, NUMBER, OBJECT, SWITCH, TEXT, TOOL_CHOICE
from simulator.validation import (
    check_bounds,
    check_format,
    check_kind,
    check_metadata,
    check_nested_choice,
    check_nested_tools,
    is_known,
    listed,
)
from simulator.wire import JsonObject

# The parameters of POST /chat/completions as the SDK (3.54) sends them, with the kind of value each takes.
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "audio": OBJECT,
    "frequency_penalty": NUMBER,
    "logit_bias": OBJECT,
    "logprobs": SWITCH,
    "max_completion_tokens": COUNT,
    "max_tokens": COUNT,
    "messages": ARRAY,
    "metadata": OBJECT,
    "modalities": ARRAY,
    "model": TEXT,
    "moderation": OBJECT,
    "n": COUNT,
    "parallel_tool_calls": SWITCH,
    "prediction": OBJECT,
    "presence_penalty": NUMBER,
    "prompt_cache_key": TEXT,
    "prompt_cache_options": OBJECT,
    "prompt_cache_retention": TEXT,
    "reasoning_effort": TEXT,
    "response_format": OBJECT,
    "safety_identifier": TEXT,
    "seed": COUNT,
    "service_tier": TEXT,
    "stop": ((str, list), "a string or an array"),
    "store": SWITCH,
    "stream": SWITCH,
    "stream_options": OBJECT,
    "temperature": NUMBER,
    "tool_choice": TOOL_CHOICE,
    "tools": ARRAY,
    "top_logprobs": COUNT,
    "top_p": NUMBER,
    "user": TEXT,
    "verbosity": TEXT,
    "web_search_options": OBJECT,
}
_BOUNDS = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "max_completion_tokens": (1, 1_000_000),
    "max_tokens": (1, 1_000_000),
}
_ROLES = ("system", "assistant", "user", "function", "tool", "developer")


def check_chat(body: JsonObject, *, any_model: bool) -> None:
    """Refuse a POST /chat/completions that OpenAI would refuse, by raising ApiError."""
    for name, value in body.items():
        if name not in _KINDS:
            message = f"Unrecognized request argument supplied: {name}"
            raise ApiError(400, message, name="unknown_parameter")
        if value is not None:
            check_kind(name, value, _KINDS[name])
    _check_model(body.get("model"), any_model=any_model)
    for name, (low, high) in _BOUNDS.items():
        check_bounds(name, body.get(name), low, high)
    _check_together(body)
    _check_tools(body)
    check_nested_choice(body.get("tool_choice"))
    check_format(body.get("response_format"))
    _check_messages(body.get("messages"))


def _check_model(model: str | None, *, any_model: bool) -> None:
    if model is None:
        # The wording of this route; the others name the parameter.
        raise ApiError(400, "you must provide a model parameter", name="missing_required_parameter")
    if not any_model and not is_known(model):
        message = f"The model `{model}` does not exist or you do not have access to it."
        raise ApiError(404, message, code="model_not_found")


def _check_together(body: JsonObject) -> None:
    """Refuse parameters that need another one, and the one that is not simulated."""
    check_metadata(body.get("metadata"))
    for name, other in (("metadata", "store"), ("stream_options", "stream")):
        if body.get(name) is not None and not body.get(other):
            message = f"The '{name}' parameter is only allowed when '{other}' is enabled."
            raise ApiError(400, message, param=name, name=f"{name}_without_{other}")
    if body.get("n") not in (None, 1):
        raise invalid("n", "The simulator gives one choice: 'n' must be 1.")


def _check_tools(body: JsonObject) -> None:
    tools = body.get("tools")
    if tools == []:
        raise _empty("tools")
    check_nested_tools(tools or [])
    for name in ("tool_choice", "parallel_tool_calls"):
        if body.get(name) is not None and not tools:
            message = f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified."
            raise ApiError(400, message, param=name, name="without_tools")


def _check_messages(messages: list[Any] | None) -> None:
    if messages is None:
        raise missing("messages")
    if not messages:
        raise _empty("messages")
    for at, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES:
            where = f"messages[{at}].role"
            raise invalid(where, f"Invalid value: '{role}'. Supported values are: {listed(_ROLES)}.")
        _check_content(message, at)
        if role == "tool":
            _check_answer(messages, at)
        if message.get("tool_calls"):
            _check_calls(messages, at)


def _check_content(message: JsonObject, at: int) -> None:
    content = message.get("content")
    if content is None and not message.get("tool_calls"):
        text = "Invalid value for 'content': expected a string, got null."
        raise ApiError(400, text, param=f"messages.[{at}].content", name="no_content")
    if content is not None:
        check_kind(f"messages[{at}].content", content, ((str, list), "one of a string or array of objects"))
    for part_at, part in enumerate(content if isinstance(content, list) else []):
        if not isinstance(part, dict) or "type" not in part:
            raise missing(f"messages[{at}].content[{part_at}].type")


def _check_answer(messages: list[JsonObject], at: int) -> None:
    """Refuse a tool message that does not follow the assistant message with its call."""
    before = next((one for one in reversed(messages[:at]) if one["role"] != "tool"), {})
    if not before.get("tool_calls"):
        message = (
            "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
        )
        raise ApiError(400, message, param=f"messages.[{at}].role", name="no_tool_call")
    call_id = messages[at].get("tool_call_id")
    if call_id is None:
        raise missing(f"messages[{at}].tool_call_id")
    if call_id not in [call["id"] for call in before["tool_calls"]]:
        message = f"Invalid parameter: 'tool_call_id' of '{call_id}' not found in 'tool_calls' of previous message."
        raise ApiError(400, message, param=f"messages.[{at}].tool_call_id", name="no_tool_call")


def _check_calls(messages: list[JsonObject], at: int) -> None:
    """Refuse calls that are malformed, or without a tool message for each directly behind them."""
    calls = messages[at]["tool_calls"]
    for call_at, call in enumerate(calls):
        for name, kind in (("id", str), ("function", dict)):
            if not isinstance(call, dict) or not isinstance(call.get(name), kind):
                raise missing(f"messages[{at}].tool_calls[{call_at}].{name}")
        for name in ("name", "arguments"):
            if not isinstance(call["function"].get(name), str):
                raise missing(f"messages[{at}].tool_calls[{call_at}].function.{name}")
    answered, after = set(), at + 1
    while after < len(messages) and isinstance(messages[after], dict) and messages[after].get("role") == "tool":
        answered.add(messages[after].get("tool_call_id"))
        after += 1
    open_ids = [call["id"] for call in calls if call["id"] not in answered]
    if open_ids:
        message = (
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(open_ids)}"
        )
        where = f"messages.[{after}].role" if after < len(messages) else "messages"
        raise ApiError(400, message, param=where, name="no_tool_output")


def _empty(name: str) -> ApiError:
    message = f"Invalid '{name}': empty array. Expected an array with minimum length 1, but got an empty array instead."
    return invalid(name, message, "empty_array")
