"""OpenAI's error bodies: status, type, code, param and message as the real server words them.

Sources: recorded exchanges, provider-facts 1.2 to 1.4, and error bodies quoted in public bug reports.
"""

import math
from typing import Any

NO_KEY = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank username) if you're accessing the API "
    "from your browser and are prompted for a username and password. You can obtain an API key from "
    "https://platform.openai.com/account/api-keys."
)
LOCKED = "Another process is currently operating on this conversation. Please retry in a few seconds."
SERVER_ERROR = (
    "The server had an error while processing your request. Sorry about that! You can retry your request, or contact "
    "us through our help center at help.openai.com if the error persists."
)
OVERLOADED = "The server is currently overloaded with other requests. Sorry about that! You can retry your request."


class ApiError(Exception):
    """An answer with an error body; `name` is what the counters call it where OpenAI gives no code."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
        name: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.name = name or code or str(status)
        self.headers = headers or {}
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def unauthorized() -> ApiError:
    """A request without a key."""
    return ApiError(401, NO_KEY, name="unauthorized")


def unknown_url(method: str, path: str) -> ApiError:
    """A path that the API does not have."""
    return ApiError(404, f"Invalid URL ({method} {path})", name="unknown_url")


def not_found(what: str, ident: str) -> ApiError:
    """A Response, Conversation or Item that does not exist."""
    return ApiError(404, f"{what} with id '{ident}' not found.", name="not_found")


def item_not_found(ident: str) -> ApiError:
    """An item that its conversation does not hold."""
    return ApiError(404, f"Item with id '{ident}' not found in conversation.", name="not_found")


def previous_not_found(ident: str) -> ApiError:
    """A previous_response_id that leads nowhere."""
    message = f"Previous response with id '{ident}' not found."
    return ApiError(400, message, code="previous_response_not_found", param="previous_response_id")


def conversation_locked() -> ApiError:
    """A second response on a conversation that is busy."""
    return ApiError(400, LOCKED, code="conversation_locked", param="conversation")


def no_tool_output(call_id: str) -> ApiError:
    """A function call of the history that nobody answered."""
    message = f"No tool output found for function call {call_id}."
    return ApiError(400, message, param="input", name="no_tool_output")


def no_tool_call(call_id: str) -> ApiError:
    """An output for a call that the model never made."""
    message = f"No tool call found for function call output with call_id {call_id}."
    return ApiError(400, message, param="input", name="no_tool_call")


def missing(param: str) -> ApiError:
    """A required parameter that is absent."""
    return ApiError(400, f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)


def invalid(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """A parameter whose value is refused."""
    return ApiError(400, message, code=code, param=param)


def not_streamed(what: str) -> ApiError:
    """A response whose events cannot be had (any more)."""
    message = f"This response {what}."
    return ApiError(400, message, code="invalid_request_error", param="stream", name="not_streamed")


def rate_limited(retry_after: float) -> ApiError:
    """An injected 429."""
    message = (
        "Rate limit reached for requests. Limit: 500 / min. "
        f"Please try again in {retry_after:g}s. Visit https://platform.openai.com/account/rate-limits to learn more."
    )
    headers = {"retry-after": f"{retry_after:g}", "retry-after-ms": f"{retry_after * 1000:.0f}"}
    return ApiError(429, message, code="rate_limit_exceeded", kind="requests", headers=headers)


def over_limit(model: str, kind: str, limit: int, seconds: float, headers: dict[str, str]) -> ApiError:
    """A 429 of the limiter; headers are the limits as they stand."""
    short = {"requests": "RPM", "tokens": "TPM"}[kind]
    message = (
        f"Rate limit reached for {model} in organization org-simulated on {kind} per min ({short}): Limit {limit}. "
        f"Please try again in {seconds:.3f}s. Visit https://platform.openai.com/account/rate-limits to learn more."
    )
    wait = {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000))}
    return ApiError(429, message, code="rate_limit_exceeded", kind=kind, headers={**headers, **wait})


def server_error() -> ApiError:
    """An injected 500."""
    return ApiError(500, SERVER_ERROR, kind="server_error", name="server_error")


def overloaded() -> ApiError:
    """The 503 of an outage."""
    return ApiError(503, OVERLOADED, kind="service_unavailable_error", name="outage")
