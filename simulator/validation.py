"""What OpenAI refuses in a request, in its words."""

from typing import Any

from simulator.errors import ApiError, invalid, missing
from simulator.kinds import ARRAY, COUNT, NUMBER, OBJECT, SWITCH, TEXT, TOOL_CHOICE
from simulator.wire import JsonObject

# The parameters of POST /responses as the SDK (3.54) sends them, with the kind of value each takes.
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "background": SWITCH,
    "background_options": OBJECT,
    "conversation": ((str, dict), "a conversation id or object"),
    "context_management": ARRAY,
    "frequency_penalty": NUMBER,
    "include": ARRAY,
    "input": ((str, list), "one of a string or array of input items"),
    "instructions": TEXT,
    "max_output_tokens": COUNT,
    "max_tool_calls": COUNT,
    "metadata": (dict, "a metadata object"),
    "model": TEXT,
    "moderation": OBJECT,
    "parallel_tool_calls": SWITCH,
    "presence_penalty": NUMBER,
    "previous_response_id": TEXT,
    "prompt_cache_key": TEXT,
    "prompt_cache_options": OBJECT,
    "prompt_cache_retention": TEXT,
    "reasoning": OBJECT,
    "safety_identifier": TEXT,
    "service_tier": TEXT,
    "store": SWITCH,
    "stream": SWITCH,
    "stream_options": OBJECT,
    "temperature": NUMBER,
    "text": OBJECT,
    "tool_choice": TOOL_CHOICE,
    "tools": ARRAY,
    "top_logprobs": COUNT,
    "top_p": NUMBER,
    "truncation": TEXT,
    "user": TEXT,
}
_BOUNDS = {"temperature": (0, 2), "top_p": (0, 1), "max_output_tokens": (16, 1_000_000), "max_tool_calls": (1, 1_000)}
_NEEDED = {
    "message": ("content",),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "item_reference": ("id",),
    "reasoning": ("summary",),
}
_TOOLS = {"function": "name", "code_interpreter": "container", "file_search": "vector_store_ids"}
_ROLES = ("assistant", "system", "developer", "user")
_PARTS = ("input_text", "input_image", "input_file", "output_text", "refusal")
_FORMATS = ("json_object", "json_schema", "text")
_UNKNOWN = "unknown_parameter"
_WINDOW_KINDS = {"completion_window": TEXT, "continuation_id": TEXT}
_WINDOWS = ("soonest", "2h", "8h")
_FAMILIES = ("gpt-", "o1", "o3", "o4")


def stateless(body: JsonObject) -> JsonObject:
    """Return a POST /responses as a server without state reads it: `background` and `store` count for nothing.

    Ollama, llama.cpp and OpenRouter are such servers; llama.cpp names the parameter as we do, the others each in words
    of their own (provider-facts 4).
    """
    for name in ("previous_response_id", "conversation"):
        if body.get(name) is not None:
            raise invalid(name, f"This server does not support '{name}'.", "unsupported_parameter")
    return {**body, "background": False, "store": False}


def check_create(body: JsonObject, *, any_model: bool = False) -> None:
    """Refuse a POST /responses that OpenAI would refuse, by raising ApiError; `any_model` knows models of any name."""
    for name, value in body.items():
        if name not in _KINDS:
            raise invalid(name, f"Unknown parameter: '{name}'.", _UNKNOWN)
        if value is not None:
            check_kind(name, value, _KINDS[name])
    _check_model(body.get("model"), any_model=any_model)
    for name, (low, high) in _BOUNDS.items():
        check_bounds(name, body.get(name), low, high)
    check_metadata(body.get("metadata"))
    _check_tools(body.get("tools") or [])
    _check_state(body)
    _check_window(body)
    if isinstance(body.get("input"), list):
        check_items(body["input"], "input")


def check_kind(name: str, value: object, wanted: tuple[type | tuple[type, ...], str]) -> None:
    """Refuse a value that is not of the wanted kind, which comes with its name."""
    kind, words = wanted
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not fits:
        message = f"Invalid type for '{name}': expected {words}, but got {_described(value)} instead."
        raise invalid(name, message, "invalid_type")


def _described(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "an integer", float: "a decimal", str: "a string", list: "an array"}
    return names.get(type(value), "an object")


def _check_model(model: str | None, *, any_model: bool) -> None:
    if model is None:
        raise missing("model")
    if not any_model and not is_known(model):
        raise invalid("model", f"The requested model '{model}' does not exist.", "model_not_found")


def is_known(model: str) -> bool:
    """Say whether a model is of OpenAI's families."""
    return model.startswith(_FAMILIES)


def check_bounds(name: str, value: float | None, low: float, high: float) -> None:
    """Refuse a number outside its bounds."""
    if value is None or low <= value <= high:
        return
    kind = "decimal" if name in ("temperature", "top_p") else "integer"
    side, sign, bound = ("below minimum", ">=", low) if value < low else ("above maximum", "<=", high)
    code = f"{kind}_{side.split()[0]}_{side.split()[1][:3]}_value"
    message = f"Invalid '{name}': {kind} {side} value. Expected a value {sign} {bound}, but got {value} instead."
    raise invalid(name, message, code)


def check_metadata(metadata: JsonObject | None) -> None:
    """Refuse metadata beyond 16 pairs of 64 and 512 characters."""
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        found = _described(metadata)
        message = f"Invalid type for 'metadata': expected a metadata object, but got {found} instead."
        raise invalid("metadata", message, "invalid_type")
    if len(metadata) > 16:
        tail = (
            f"Expected an object with at most 16 properties, but got an object with {len(metadata)} properties instead."
        )
        raise invalid("metadata", f"Invalid 'metadata': too many properties. {tail}", "object_above_max_properties")
    for key, value in metadata.items():
        _check_pair(key, value)


def _check_pair(key: str, value: Any) -> None:
    param = f"metadata.{key}"
    if len(key) > 64:
        tail = f"Expected a string with maximum length 64, but got a string with length {len(key)} instead."
        message = f"Invalid property name in 'metadata': '{key}' is too long. {tail}"
        raise invalid(param, message, "property_name_above_max_length")
    if not isinstance(value, str):
        message = f"Invalid type for '{param}': expected a string, but got {_described(value)} instead."
        raise invalid(param, message, "invalid_type")
    if len(value) > 512:
        tail = f"Expected a string with maximum length 512, but got a string with length {len(value)} instead."
        raise invalid(param, f"Invalid '{param}': string too long. {tail}", "string_above_max_length")


def _check_tools(tools: list[Any]) -> None:
    for at, tool in enumerate(tools):
        if not isinstance(tool, dict) or "type" not in tool:
            raise missing(f"tools[{at}].type")
        needed = _TOOLS.get(tool["type"])
        if needed and not tool.get(needed):
            raise missing(f"tools[{at}].{needed}")


def check_nested_tools(tools: list[Any]) -> None:
    """Refuse tools as the older protocols have them that lack a type, or a function without its name."""
    for at, tool in enumerate(tools):
        if not isinstance(tool, dict) or "type" not in tool:
            raise missing(f"tools[{at}].type")
        _check_function(tool, f"tools[{at}]")


def _check_function(given: JsonObject, where: str) -> None:
    function = given.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if given.get("type") == "function" and not (isinstance(name, str) and name):
        raise missing(f"{where}.function.name")


def check_nested_choice(choice: Any) -> None:
    """Refuse a tool choice of the older protocols that names no function."""
    if isinstance(choice, dict):
        _check_function(choice, "tool_choice")


def check_format(given: Any) -> None:
    """Refuse a response format that is no known one, or a schema without its name; a word is one of Assistants'."""
    if not isinstance(given, dict):
        return
    kind, schema = given.get("type"), given.get("json_schema")
    if kind not in _FORMATS:
        raise invalid("response_format.type", f"Invalid value: '{kind}'. Supported values are: {listed(_FORMATS)}.")
    if kind == "json_schema" and not (isinstance(schema, dict) and schema.get("name")):
        raise missing("response_format.json_schema.name")


def _check_state(body: JsonObject) -> None:
    conversation, previous = body.get("conversation"), body.get("previous_response_id")
    if isinstance(conversation, dict) and not isinstance(conversation.get("id"), str):
        raise missing("conversation.id")
    if conversation and previous:
        message = (
            "Mutually exclusive parameters: Ensure you are only providing one of: "
            "'previous_response_id' or 'conversation'."
        )
        raise ApiError(400, message, code="mutually_exclusive_parameters")
    if body.get("input") is None and not conversation and not previous:
        raise missing("input")


def _check_window(body: JsonObject) -> None:
    """Refuse a completion window that is none, and one of hours that the rest of the request does not go with.

    The rules are those of BackgroundOptions (openai 3.54); OpenAI's words for them, where they are broken, nobody has
    recorded.
    """
    options = body.get("background_options") or {}
    for name, value in options.items():
        if name not in _WINDOW_KINDS:
            raise invalid(f"background_options.{name}", f"Unknown parameter: 'background_options.{name}'.", _UNKNOWN)
        check_kind(f"background_options.{name}", value, _WINDOW_KINDS[name])
    param, window = "background_options.completion_window", options.get("completion_window", _WINDOWS[0])
    if window not in _WINDOWS:
        raise invalid(param, f"Invalid value: '{window}'. Supported values are: {listed(_WINDOWS)}.")
    fits = body.get("background"), (body.get("service_tier") or "auto") in ("auto", "default"), not body.get("stream")
    needs = ("'background' to be true", "'service_tier' to be 'auto' or 'default'", "'stream' to be false or omitted")
    for fit, need in zip(fits, needs, strict=True):
        if window != _WINDOWS[0] and not fit:
            raise invalid(param, f"The completion window '{window}' requires {need}.")


def check_items(items: Any, where: str, at_most: int | None = None) -> None:
    """Refuse items that are not messages, function calls, their outputs, reasoning or references."""
    if not isinstance(items, list):
        raise invalid(where, f"Invalid type for '{where}': expected an array, but got {_described(items)} instead.")
    if at_most is not None and len(items) > at_most:
        tail = f"Expected an array with maximum length {at_most}, but got an array with length {len(items)} instead."
        raise invalid(where, f"Invalid '{where}': array too long. {tail}", "array_above_max_length")
    for at, item in enumerate(items):
        _check_item(item, f"{where}[{at}]")


def _check_item(item: Any, where: str) -> None:
    if not isinstance(item, dict):
        message = f"Invalid type for '{where}': expected an input item, but got {_described(item)} instead."
        raise invalid(where, message, "invalid_type")
    kind = item.get("type", "message")
    if kind not in _NEEDED:
        raise invalid(where, f"Invalid value: '{kind}'. Supported values are: {listed(tuple(_NEEDED))}.")
    if kind == "message" and item.get("role") not in _ROLES:
        raise invalid(where, f"Invalid value: '{item.get('role', '')}'. Supported values are: {listed(_ROLES)}.")
    for name in _NEEDED[kind]:
        if item.get(name) is None:
            raise missing(f"{where}.{name}")
    content = item.get("content") if kind == "message" else None
    for at, part in enumerate(content if isinstance(content, list) else []):
        _check_part(part, f"{where}.content[{at}]")


def _check_part(part: Any, where: str) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in _PARTS:
        raise invalid(f"{where}.type", f"Invalid value: '{kind}'. Supported values are: {listed(_PARTS)}.")
    if kind in ("input_text", "output_text") and not isinstance(part.get("text"), str):
        raise missing(f"{where}.text")


def listed(names: tuple[str, ...]) -> str:
    """Return names as OpenAI lists them."""
    if len(names) == 2:
        return f"'{names[0]}' and '{names[1]}'"
    return ", ".join(f"'{name}'" for name in names[:-1]) + f", and '{names[-1]}'"
