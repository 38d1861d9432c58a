"""What OpenAI refuses in the requests of Assistants v2, in its words (error bodies quoted in public bug reports)."""

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

NO_BETA = (
    "You must provide the 'OpenAI-Beta' header to access the Assistants API. Please try again by setting the header "
    "'OpenAI-Beta: assistants=v2'."
)
_FORMAT = ((str, dict), "a response format")
_SETTINGS = {
    "model": TEXT,
    "instructions": TEXT,
    "tools": ARRAY,
    "metadata": OBJECT,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "reasoning_effort": TEXT,
    "response_format": _FORMAT,
}
ASSISTANT = {**_SETTINGS, "name": TEXT, "description": TEXT, "tool_resources": OBJECT}
THREAD = {"messages": ARRAY, "metadata": OBJECT, "tool_resources": OBJECT}
MESSAGE = {"role": TEXT, "content": ((str, list), "a string or an array"), "attachments": ARRAY, "metadata": OBJECT}
RUN = {
    **_SETTINGS,
    "assistant_id": TEXT,
    "additional_instructions": TEXT,
    "additional_messages": ARRAY,
    "max_completion_tokens": COUNT,
    "max_prompt_tokens": COUNT,
    "parallel_tool_calls": SWITCH,
    "stream": SWITCH,
    "tool_choice": TOOL_CHOICE,
    "truncation_strategy": OBJECT,
}
OUTPUTS = {"tool_outputs": ARRAY, "stream": SWITCH}
METADATA = {"metadata": OBJECT}
_BOUNDS = {"temperature": (0, 2), "top_p": (0, 1)}
_LEAST = 256  # of max_prompt_tokens and max_completion_tokens, as the document says
_ROLES = ("user", "assistant")


def no_beta() -> ApiError:
    """A request without the header that all of Assistants v2 needs."""
    return ApiError(400, NO_BETA, code="invalid_beta")


def not_found(what: str, ident: str) -> ApiError:
    """An assistant, thread, message, run or run step that does not exist."""
    return ApiError(404, f"No {what} found with id '{ident}'.", name="not_found")


def already_active(thread_id: str, run_id: str) -> ApiError:
    """A second run on a thread."""
    return ApiError(400, f"Thread {thread_id} already has an active run {run_id}.", name="active_run")


def no_messages_now(thread_id: str, run_id: str) -> ApiError:
    """A message for a thread while a run is active."""
    message = f"Can't add messages to {thread_id} while a run {run_id} is active."
    return ApiError(400, message, name="active_run")


def no_outputs_now(status: str) -> ApiError:
    """Outputs for a run that does not wait for any."""
    return ApiError(400, f'Runs in status "{status}" do not accept tool outputs.', name="no_outputs_now")


def wrong_outputs(expected: list[str], got: list[str]) -> ApiError:
    """Outputs for other calls than those that the run waits for: it wants all of them at once."""
    return ApiError(400, f"Expected tool outputs for call_ids {expected}, got {got}", name="wrong_outputs")


def no_cancel_now(status: str) -> ApiError:
    """A cancel of a run that has ended or is being cancelled."""
    return ApiError(400, f"Cannot cancel run with status '{status}'.", name="no_cancel_now")


def check(body: JsonObject, kinds: dict[str, Any], needed: tuple[str, ...] = ()) -> None:
    """Refuse parameters that a request does not have, of the wrong kind or out of bounds, and the lack of others."""
    for name, value in body.items():
        if name not in kinds:
            raise invalid(name, f"Unknown parameter: '{name}'.", "unknown_parameter")
        if value is not None:
            check_kind(name, value, kinds[name])
    for name in needed:
        if body.get(name) is None:
            raise missing(name)
    check_metadata(body.get("metadata"))
    check_nested_tools(body.get("tools") or [])
    check_nested_choice(body.get("tool_choice"))
    check_format(body.get("response_format"))
    last = (body.get("truncation_strategy") or {}).get("last_messages")
    if last is not None:
        check_kind("truncation_strategy.last_messages", last, COUNT)
    for name, (low, high) in _BOUNDS.items():
        check_bounds(name, body.get(name), low, high)
    for name in ("max_prompt_tokens", "max_completion_tokens"):
        check_bounds(name, body.get(name), _LEAST, 1_000_000)
    if body.get("model") and not is_known(body["model"]):
        message = f"The requested model '{body['model']}' does not exist."
        raise invalid("model", message, "model_not_found")


def check_message(message: Any, where: str = "") -> None:
    """Refuse a message that is not one of the user or the assistant, or has no content."""
    if not isinstance(message, dict):
        raise invalid(where.rstrip("."), f"Invalid type for '{where.rstrip('.')}': expected an object.", "invalid_type")
    check(message, MESSAGE)
    for name in ("role", "content"):
        if message.get(name) is None:
            raise missing(f"{where}{name}")
    if message["role"] not in _ROLES:
        raise invalid(f"{where}role", f"Invalid value: '{message['role']}'. Supported values are: {listed(_ROLES)}.")
    for at, part in enumerate(message["content"] if isinstance(message["content"], list) else []):
        if not isinstance(part, dict) or part.get("type") not in ("text", "image_url", "image_file"):
            raise missing(f"{where}content[{at}].type")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise missing(f"{where}content[{at}].text")


def check_outputs(outputs: list[Any]) -> None:
    """Refuse outputs that do not say whose they are."""
    for at, output in enumerate(outputs):
        if not isinstance(output, dict) or not isinstance(output.get("tool_call_id"), str):
            raise missing(f"tool_outputs[{at}].tool_call_id")
        if output.get("output") is not None:
            check_kind(f"tool_outputs[{at}].output", output["output"], TEXT)
