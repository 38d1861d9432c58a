"""Chat completions: the messages as the items that the model reads, and its response as a completion."""

from typing import Any

from simulator.chat_validation import check_chat
from simulator.errors import ApiError
from simulator.model import reply_to
from simulator.prompt import Prompt
from simulator.provider import Asking, Provider
from simulator.reading import item_text
from simulator.responses import Response
from simulator.translation import flat_choice, flat_tools, text_format
from simulator.wire import MODELS, JsonObject, labelled

# A completion has no status: a response that fails is an error, of this status and type; any other code is a 500.
_ERRORS = {
    "rate_limit_exceeded": (429, "requests"),
    "insufficient_quota": (429, "insufficient_quota"),
    "context_length_exceeded": (400, "invalid_request_error"),
    "invalid_prompt": (400, "invalid_request_error"),
}


def asked(provider: Provider, body: JsonObject, step: dict[str, str]) -> Asking:
    """Return what a completion asks for, with nothing done yet; `step` names the client's run, attempt and step."""
    check_chat(body, any_model=provider.faults.settings.stateless)
    request = _request(body, step)
    items = [item for message in body["messages"] for item in _items(message)]
    written = [
        at for at, item in enumerate(items) if item["type"] == "function_call" or item.get("role") == "assistant"
    ]
    new = written[-1] + 1 if written else 0
    prompt = Prompt.of(request, items, provider.counters.attempt(request["metadata"].get("run_id")))
    return Asking(request, None, items[:new], items[new:], reply_to(prompt))


def _request(body: JsonObject, step: dict[str, str]) -> JsonObject:
    """Return the request as Responses would have it: in the foreground, and kept nowhere."""
    told = [item_text({"type": "message", **one}) for one in body["messages"] if one["role"] in ("system", "developer")]
    return {
        "model": body["model"],
        "instructions": "\n\n".join(told),
        "tools": flat_tools(body.get("tools")),
        "tool_choice": flat_choice(body.get("tool_choice")),
        "parallel_tool_calls": body.get("parallel_tool_calls"),
        "text": {"format": text_format(body.get("response_format"))},
        "max_output_tokens": body.get("max_completion_tokens") or body.get("max_tokens"),
        "metadata": {**(body.get("metadata") or {}), **step},
        "store": False,
    }


def _items(message: JsonObject) -> list[JsonObject]:
    role, content = message["role"], message.get("content")
    if role in ("system", "developer"):
        return []
    if role == "tool":
        return [{"type": "function_call_output", "call_id": message["tool_call_id"], "output": content}]
    calls = [
        {"type": "function_call", "call_id": one["id"], **one["function"]} for one in message.get("tool_calls") or []
    ]
    said = [{"type": "message", "role": "assistant" if role == "assistant" else "user", "content": content}]
    return [*(said if content else []), *calls]


def completion(response: Response, body: JsonObject) -> JsonObject:
    """Return the completion of a response that has ended; ApiError where it failed."""
    outcome = response.outcome
    if outcome.error is not None:
        raise failure(outcome.error)
    calls = tool_calls(response)
    message: JsonObject = {"role": "assistant", "content": text(response), "refusal": None, "annotations": []}
    choice = {"index": 0, "logprobs": None, "finish_reason": finish_reason(response)}
    kept = {"metadata": labelled(body.get("metadata"))} if body.get("store") else {}
    return {
        **head(response, "chat.completion"),
        "choices": [{**choice, "message": {**message, **({"tool_calls": calls} if calls else {})}}],
        "usage": usage(response),
        **kept,
    }


def head(response: Response, kind: str) -> JsonObject:
    """Return what a completion and each chunk of its stream begin with."""
    model = response.request["model"]
    return {
        "id": response.id.replace("resp_", "chatcmpl-"),
        "object": kind,
        "created": int(response.created),
        "model": MODELS.get(model, model),
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
    }


def text(response: Response) -> str | None:
    """Return the text that the model wrote, if it wrote any."""
    written = [item_text(item) for item in response.outcome.output if item["type"] == "message"]
    return "".join(written) or None


def tool_calls(response: Response) -> list[JsonObject]:
    """Return the calls that the model made."""
    return [call(item) for item in response.outcome.output if item["type"] == "function_call"]


def call(item: JsonObject) -> JsonObject:
    """Return a function call as chat completions and Assistants have it."""
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def finish_reason(response: Response) -> str:
    """Say why the model stopped."""
    if response.outcome.status == "incomplete":
        return "length"
    return "tool_calls" if tool_calls(response) else "stop"


def usage(response: Response) -> JsonObject:
    """Return the usage of a response that has not failed."""
    used: dict[str, Any] = response.outcome.usage or {}
    nothing = {"audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}
    return {
        "prompt_tokens": used["input_tokens"],
        "completion_tokens": used["output_tokens"],
        "total_tokens": used["total_tokens"],
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, **nothing},
    }


def failure(error: JsonObject) -> ApiError:
    """Return a response's failure as the answer to its request."""
    status, kind = _ERRORS.get(error["code"], (500, "server_error"))
    return ApiError(status, error["message"], code=error["code"], kind=kind)
