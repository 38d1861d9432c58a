"""What a failed request means for a run: it may pass, it will not, or nobody can tell."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from math import isfinite
from typing import Any

import aiohttp

from worker.backends.base import Failed, Look
from worker.backends.transport.bodies import clean
from worker.errors import ProviderError

# Failures of a whole response that may pass (openai.types.responses.response_error; treated as an open set).
TRANSIENT_CODES = frozenset({"server_error", "rate_limit_exceeded", "vector_store_timeout"})
CONVERSATION_GONE = "conversation_gone"
# As the Responses and the Assistants API say it ("No thread found with id 'thread_…'.").
_GONE = re.compile(r"conversation|no thread found|^http 404: thread\b", re.IGNORECASE)
_TRANSIENT_STATUSES = frozenset({408, 409, 429})
# What the server itself says; every other 5xx may be a gateway's (502, 504, and 520 to 524 of some), and the server
# behind it may have taken the request (RFC 9110, 15.6.3 and 15.6.5).
_OWN_STATUSES = frozenset({500, 501, 503, 529})  # 529: overloaded, as some servers say in place of 503
# 429 for a budget that is used up does not pass by waiting seconds, although its status says so.
_SPENT = frozenset({"insufficient_quota", "billing_not_active", "billing_hard_limit_reached"})
_AT_FAULT = frozenset({"invalid_request_error", "context_length_exceeded", "invalid_prompt", "BadRequestError"})
# No connection, or none through the proxy. One that was reset may have carried the request.
_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)
# Shorter ones are placeholders for servers that ask for none, and words of their own.
_KEY_LENGTH = 8


def explain(error: Exception, *, creating: bool) -> ProviderError:
    """Return the meaning of a request without an answer; `creating` is a POST that may have begun work all the same."""
    if isinstance(error, aiohttp.ClientError | TimeoutError | OSError):
        unsent = isinstance(error, _NOT_SENT)
        return ProviderError(
            "connection_error",
            f"the connection to the provider failed ({type(error).__name__})",
            transient=unsent or not creating,
            unknown=creating and not unsent,
        )
    return unreadable(f"the provider's answer made the client fail ({type(error).__name__})", creating=creating)


def unreadable(message: str, *, creating: bool) -> ProviderError:
    """Return the meaning of an answer that came and cannot be read: the work behind it may have begun."""
    return ProviderError("bad_answer", message, transient=not creating, unknown=creating)


def stalled(seconds: float) -> ProviderError:
    """Return the meaning of a create that was answered with nothing in so many seconds."""
    return ProviderError("stalled", f"the provider said nothing for {seconds:g} s", unknown=True)


def interrupted(event: bytes, key: str) -> ProviderError:
    """Return the meaning of a stream that begins with an error or with nothing: the work behind it may go on."""
    told = _told(event)
    code = clean(_text(told.get("code")) or "stream_ended")[:100]
    said = _text(told.get("message")) or "the stream ended before its first event"
    return ProviderError(code, str(clean(without_key(said, key)))[:2000], unknown=True)


def reported(event: bytes) -> ProviderError:
    """Return the meaning of an error that the server tells in place of an answer, or in the middle of one.

    Its code is a word, or an HTTP status (OpenRouter, vLLM, llama.cpp). What does not say that the request is at fault
    may pass.
    """
    told = _told(event)
    code, kind = clean(_text(told.get("code")) or _text(told.get("type")) or "server_error")[:100], told.get("type")
    status = int(code) if code.isdecimal() and len(code) == 3 else 0
    at_fault = 400 <= status < 500 and status not in _TRANSIENT_STATUSES
    refused = at_fault or kind in _AT_FAULT or code in _AT_FAULT or code in _SPENT
    message = str(clean(_text(told.get("message")) or "the provider told an error without a reason"))[:2000]
    named = "rate_limit_exceeded" if status == HTTPStatus.TOO_MANY_REQUESTS else f"http_{code}" if status else code
    return ProviderError(named, message, transient=not refused)


def rejected(
    status: int, headers: Mapping[str, str], body: bytes, *, key: str = "", creating: bool = False
) -> ProviderError:
    """Return the meaning of an answer that is not 2xx; the key that the request carried is taken out of its words.

    An explicit answer of the server means that nothing was created; a gateway only tells that it got none. Headers are
    found whatever their case.
    """
    told = _told(body)
    code = clean(_text(told.get("code")) or f"http_{status}")[:100]
    message = _message(status, headers, told, key)
    if creating and status >= 500 and status not in _OWN_STATUSES:
        return ProviderError(code, message, unknown=True, status=status)
    if status == 404 and _GONE.search(message):
        return ProviderError(CONVERSATION_GONE, message, status=status)
    may_pass = status in _TRANSIENT_STATUSES or status >= 500
    transient = code == "conversation_locked" or (may_pass and code not in _SPENT)
    told_to_wait = _retry_after(headers)
    return ProviderError(code, message, transient=transient, retry_after=told_to_wait, status=status, headers=headers)


def _told(body: bytes) -> Mapping[str, Any]:
    """Return what the server says of the error: the object under `error`, or the whole body where there is none."""
    try:
        whole = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    told = whole.get("error", whole) if isinstance(whole, dict) else None
    return told if isinstance(told, dict) else {}


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _message(status: int, headers: Mapping[str, str], told: Mapping[str, Any], key: str) -> str:
    said = without_key(_text(told.get("message")), key)
    if 300 <= status < 400:
        said = "the server redirects; OPENAI_BASE_URL must be its final address"
    request_id = headers.get("x-request-id")
    request = f" (request {request_id})" if request_id else ""
    message = f"HTTP {status}: {said or 'no reason given'}{request}"
    return str(clean(without_key(message, key)))[:2000]


def without_key(message: str, key: str) -> str:
    """Take out the key that the request carried: servers and proxies repeat it in their complaints, perhaps cut."""
    if len(key) < _KEY_LENGTH:
        return message
    message = message.replace(key, "[key]")
    part = next((size for size in range(len(key) - 1, _KEY_LENGTH - 1, -1) if message.endswith(key[:size])), 0)
    return f"{message[:-part]}[key]" if part else message


def kept_out(look: Look, key: str) -> Look:
    """Return what a look has found, with the key taken out where it is a failure."""
    return replace(look, message=without_key(look.message, key)) if isinstance(look, Failed) else look


def _retry_after(headers: Mapping[str, str]) -> float | None:
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
