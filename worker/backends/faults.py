"""What an exception of the openai client means for a run: it may pass, it will not, or nobody can tell."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite

import httpx2
import openai

from worker.backends.bodies import clean
from worker.errors import ProviderError

# Failures of a whole response that may pass (openai.types.responses.response_error; treated as an open set).
TRANSIENT_CODES = frozenset({"server_error", "rate_limit_exceeded", "vector_store_timeout"})
CONVERSATION_GONE = "conversation_gone"
_TRANSIENT_STATUSES = frozenset({408, 409, 429})
# What the server itself says; every other 5xx may be a gateway's (502, 504, and 520 to 524 of some), and the server
# behind it may have taken the request (RFC 9110, 15.6.3 and 15.6.5).
_OWN_STATUSES = frozenset({500, 501, 503, 529})  # 529: overloaded, as some servers say in place of 503
# 429 for a budget that is used up does not pass by waiting seconds, although its status says so.
_SPENT = frozenset({"insufficient_quota", "billing_not_active", "billing_hard_limit_reached"})
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
# Shorter ones are placeholders for servers that ask for none, and words of their own.
_KEY_LENGTH = 8


def explain(error: Exception, *, creating: bool) -> ProviderError:
    """Return the meaning of a failed request; `creating` is a POST that may have begun work all the same."""
    if isinstance(error, openai.APIStatusError):
        return _rejected(error, creating=creating)
    if isinstance(error, openai.APIConnectionError | TimeoutError):
        cause = (error.__cause__ if isinstance(error, openai.APIError) else None) or error
        unsent = isinstance(cause, _NOT_SENT)
        return ProviderError(
            "connection_error",
            f"the connection to the provider failed ({type(cause).__name__})",
            transient=unsent or not creating,
            unknown=creating and not unsent,
        )
    return unreadable(f"the provider's answer made the client fail ({type(error).__name__})", creating=creating)


def unreadable(message: str, *, creating: bool) -> ProviderError:
    """Return the meaning of an answer that came and cannot be read: the work behind it may have begun."""
    return ProviderError("bad_answer", message, transient=not creating, unknown=creating)


def _rejected(error: openai.APIStatusError, *, creating: bool) -> ProviderError:
    """An explicit answer of the server means that nothing was created; a gateway only tells that it got none."""
    code = clean(error.code or f"http_{error.status_code}")[:100]
    if creating and error.status_code >= 500 and error.status_code not in _OWN_STATUSES:
        return ProviderError(code, _message(error), unknown=True)
    if error.status_code == 404 and "conversation" in _message(error).lower():
        return ProviderError(CONVERSATION_GONE, _message(error))
    may_pass = error.status_code in _TRANSIENT_STATUSES or error.status_code >= 500
    transient = code == "conversation_locked" or (may_pass and code not in _SPENT)
    message = _message(error)
    return ProviderError(code, message, transient=transient, retry_after=_retry_after(error.response.headers))


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    told = body.get("message") if isinstance(body, dict) else None
    if 300 <= error.status_code < 400:
        told = "the server redirects; OPENAI_BASE_URL must be its final address"
    request = f" (request {error.request_id})" if error.request_id else ""
    message = f"HTTP {error.status_code}: {told or 'no reason given'}{request}"
    return str(clean(_without_key(message, error.request)))[:2000]


def _without_key(message: str, request: httpx2.Request) -> str:
    """Take out the key that the request carried: servers and proxies repeat it in their complaints."""
    key = request.headers.get("authorization", "").removeprefix("Bearer ")
    return message.replace(key, "[key]") if len(key) >= _KEY_LENGTH else message


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Return the seconds the server asks to wait: retry-after-ms, or Retry-After as seconds or as a date (RFC 9110)."""
    milliseconds, told = _number(headers.get("retry-after-ms")), headers.get("retry-after")
    if milliseconds is not None:
        return milliseconds / 1000
    seconds = _number(told)
    return _until(told) if seconds is None and told else seconds


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return max(0.0, number) if isfinite(number) else None


def _until(date: str) -> float | None:
    try:
        return max(0.0, (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
