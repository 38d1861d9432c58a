"""What a failed request means, for every status, header and body that a server may send."""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from math import isfinite
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from worker.backends.responses.bodies import ResponseBody
from worker.backends.transport import faults
from worker.backends.transport.bodies import clean, read
from worker.backends.transport.faults import explain
from worker.errors import ProviderError

KEY = "sk-never-shown-0123456789"
# Lone surrogates and NUL included.
TEXT = st.text(st.characters(exclude_categories=[]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def rejected(
    status: int, body: object = None, headers: dict[str, str] | None = None, *, creating: bool, key: str = KEY
) -> ProviderError:
    content = json.dumps({"error": body}).encode()
    return faults.rejected(status, CIMultiDict(headers or {}), content, key=key, creating=creating)


@given(status=st.integers(300, 599), body=JSON, creating=st.booleans())
def test_a_rejection_always_means_something(status: int, body: Any, creating: bool) -> None:
    """Whatever the body is: unknown only behind a gateway, a code that fits its column, text that databases take."""
    error = rejected(status, body, creating=creating)
    assert error.unknown == (creating and status >= 500 and status not in {500, 501, 503, 529})
    assert not (error.unknown and error.transient)
    assert 0 < len(error.code) <= 100
    assert len(error.message) <= 2000
    assert "\x00" not in (error.code + error.message).encode().decode()


@pytest.mark.parametrize("status", [502, 504, 520, 522, 524])
def test_a_gateway_cannot_say_whether_it_was_created(status: int) -> None:
    """Also in the words of those before the provider (520 to 524): the create is never tried again unseen."""
    error = rejected(status, creating=True)
    assert (error.unknown, error.transient) == (True, False)


@pytest.mark.parametrize("status", [500, 501, 503, 529])
def test_what_the_server_itself_refuses_was_not_created(status: int) -> None:
    """Its own word, so it may be tried again."""
    error = rejected(status, creating=True)
    assert (error.unknown, error.transient) == (False, True)


@given(before=st.text(), after=st.text(max_size=3000))
def test_the_key_is_taken_out(before: str, after: str) -> None:
    """Wherever the server repeats it, the end of a cut message included."""
    error = rejected(401, {"message": f"{before}{KEY}{after}"}, creating=True)
    assert KEY not in f"{error} {error.message}"


@pytest.mark.parametrize("cut", [8, len(KEY) - 1])
def test_a_key_that_the_server_s_message_ends_in_is_taken_out(cut: int) -> None:
    """Also where the request's id stands behind it, as it does with every answer of OpenAI's."""
    error = rejected(401, {"message": f"Incorrect: {KEY[:cut]}"}, {"x-request-id": "req_1"}, creating=True)
    assert error.message == "HTTP 401: Incorrect: [key] (request req_1)"


def test_a_word_that_stands_for_a_key_is_left_in_place() -> None:
    """A server that asks for no key gets any word, and may use it in a sentence."""
    error = rejected(404, {"message": "ollama pull it"}, key="ollama", creating=True)
    assert error.message == "HTTP 404: ollama pull it"


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_not_active", "billing_hard_limit_reached"])
def test_a_budget_that_is_used_up_is_permanent(code: str) -> None:
    """Its status says to come back soon, and nothing will have changed by then."""
    assert not rejected(429, {"code": code}, {"Retry-After": "1"}, creating=True).transient


@given(
    told=st.text(st.characters(max_codepoint=126, min_codepoint=32)),
    name=st.sampled_from(["Retry-After", "retry-after-ms"]),
)
def test_any_retry_after_is_seconds_or_nothing(told: str, name: str) -> None:
    """A header that makes no sense is left out; none raises, is negative or endless."""
    seconds = rejected(429, headers={name: told}, creating=True).retry_after
    assert seconds is None or (isfinite(seconds) and seconds >= 0)


@given(st.floats(0, 1e9))
def test_retry_after_in_seconds_is_kept(seconds: float) -> None:
    """The number is taken as it is, and milliseconds are a thousandth."""
    assert rejected(503, headers={"Retry-After": repr(seconds)}, creating=True).retry_after == seconds
    assert rejected(503, headers={"retry-after-ms": repr(seconds)}, creating=True).retry_after == seconds / 1000


@given(st.integers(60, 10**8), st.sampled_from([UTC, None]))
def test_retry_after_as_a_date_is_the_time_until_then(seconds: int, zone: Any) -> None:
    """With a zone; a date that names none (-0000) says nothing for sure."""
    date = datetime.now(UTC) + timedelta(seconds=seconds)
    told = rejected(503, headers={"Retry-After": format_datetime(date.replace(tzinfo=zone))}, creating=True).retry_after
    if zone is None:
        assert told is None
    else:
        assert told == pytest.approx(seconds, abs=30)


@pytest.mark.parametrize("told", ["nan", "inf", "-inf", "1e999", "", "soon", "Mon, 99 Jan 99999 00:00:00 GMT"])
def test_a_retry_after_without_sense(told: str) -> None:
    """It is as if the server had said nothing."""
    assert rejected(429, headers={"Retry-After": told}, creating=True).retry_after is None


UNSENT = (aiohttp.ClientConnectorDNSError, aiohttp.ClientConnectorError, aiohttp.ClientConnectorSSLError)
UNSENT_TOO = (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError, aiohttp.ConnectionTimeoutError)
SENT = (aiohttp.SocketTimeoutError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientPayloadError)
SENT_TOO = (aiohttp.ClientConnectionResetError, ConnectionResetError, BrokenPipeError, TimeoutError)


@pytest.mark.parametrize("kind", [*UNSENT, *UNSENT_TOO])
@pytest.mark.parametrize("creating", [True, False])
def test_what_was_not_sent_created_nothing(kind: type[Exception], creating: bool) -> None:
    """It may be tried again, a create included."""
    error = explain(kind.__new__(kind, KEY), creating=creating)
    assert (error.transient, error.unknown) == (True, False)


@pytest.mark.parametrize("kind", [*SENT, *SENT_TOO])
@pytest.mark.parametrize("creating", [True, False])
def test_what_was_sent_may_have_created(kind: type[Exception], creating: bool) -> None:
    """After a create nobody can tell; the message names the kind of failure and not its text."""
    error = explain(kind.__new__(kind, KEY), creating=creating)
    assert (error.transient, error.unknown) == (not creating, creating)
    assert kind.__name__ in error.message
    assert KEY not in error.message


@pytest.mark.parametrize("error", [TimeoutError(), UnicodeError(KEY), LookupError(KEY), AttributeError(KEY)])
@pytest.mark.parametrize("creating", [True, False])
def test_whatever_the_client_raises(error: Exception, creating: bool) -> None:
    """Every other exception is an answer that was lost."""
    told = explain(error, creating=creating)
    assert (told.transient, told.unknown) == (not creating, creating)
    assert type(error).__name__ in told.message
    assert KEY not in told.message


def texts(value: Any) -> Iterator[str]:
    """Return every text in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (*value, *(text for item in value.values() for text in texts(item)))
    elif isinstance(value, list):
        yield from (text for item in value for text in texts(item))


@given(JSON)
def test_any_value_can_be_made_storable(value: Any) -> None:
    """What comes out is UTF-8 without NUL, of the same shape, and clean already."""
    cleaned = clean(value)
    assert not any("\x00" in text for text in texts(cleaned))
    assert "".join(texts(cleaned)).encode() or not any(texts(cleaned))
    assert clean(cleaned) == cleaned
    assert type(cleaned) is (type(None) if isinstance(value, float) and not math.isfinite(value) else type(value))


@given(st.binary() | st.binary().map(lambda noise: b'{"id": "r", "status": "completed", "output": [' + noise + b"]}"))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    """An answer is understood, or one line says what is wrong with it."""
    try:
        told = read(content, ResponseBody).id
    except ValueError as error:
        told = str(error)
    assert told == "r" or (told.startswith("the provider's answer ") and "\n" not in told)
