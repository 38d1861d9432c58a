"""Requests to one provider's server: aiohttp's connections under the openai client's configuration.

A request of the openai client costs milliseconds of CPU, most of it for building and checking models, and one of
aiohttp a tenth of that or less (docs/performance.md). So its configuration is taken (address, authentication, headers,
certificates), and nothing of its way of sending. Nothing is sent twice: aiohttp repeats idempotent requests alone, and
those only on a connection that had closed.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
import openai
from pydantic import BaseModel
from yarl import URL

from tools.text import storable
from worker.backends.bounds import Bound, Readers
from worker.backends.transport.bodies import clean, read
from worker.backends.transport.faults import explain, rejected, stalled, unreadable
from worker.backends.transport.sse import AnswerTooLong
from worker.errors import ProviderError, SettingsError

Body = TypeVar("Body", bound=BaseModel)
# Below what servers keep an idle connection for (uvicorn: 5 s), so that no request meets one that is just closing.
_KEEP_ALIVE = 4.0
_LONGEST_ID = 200
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_LARGEST = 64 * 2**20  # bytes of an answer in one piece
# The client also sends OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS, perhaps with secrets (openai 3.54).
_ANYBODYS = ("accept", "content-type", "user-agent", "x-stainless-")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered, its body as it is; the status is 2xx."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def request_id(self) -> str | None:
        """Return what the server's support asks for; headers may hold any bytes, which come as lone surrogates."""
        said = self.headers.get("x-request-id")
        return storable(said)[:_LONGEST_ID] if said else None

    def read(self, kind: type[Body], *, creating: bool = False) -> Body:
        """Return what the body says, checked; raises ProviderError, which `creating` leaves unknown."""
        try:
            return read(self.body, kind)
        except ValueError as error:
            raise unreadable(str(error), creating=creating) from None


class Opening(Protocol):
    """What reads a stream, from its first event on."""

    ends: ExitStack
    """What is to be done when it is closed."""

    async def begun(self) -> bytes:
        """Return the data of the first event; raises ProviderError where there is none, of unknown outcome."""
        ...


Read = TypeVar("Read", bound=Opening)


class Http:
    """Sends short requests to one server with one key; they share a bound, since thousands at once collapse.

    Streams have places of their own.
    """

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str | None,
        requests: int,
        timeout: float,
        streams: int = 0,
        headers: Mapping[str, str] | None = None,
        foreign: bool = False,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        """Make no connection yet; `timeout` (seconds) is for one request, `requests` bounds those open at once.

        No look is called for while this process is `crowded` with runs that have been seen to have ended.
        `headers` go with each request, beside those of the openai client; a `foreign` server, which is not that of
        OPENAI_BASE_URL, gets none that the client takes from the environment.
        """
        if not (api_key.isascii() and api_key.isprintable()):
            raise SettingsError("OPENAI_API_KEY: holds a character that no HTTP header can carry, such as a line break")
        sdk = openai.AsyncOpenAI(api_key=api_key, base_url=base_url)
        self.key = api_key
        self._url = str(sdk.base_url).rstrip("/")
        self.host = sdk.base_url.host
        self.bound = Bound(requests)
        # Those that only read leave some places: else thousands of looks would hold up what is to be begun.
        self.readers = Readers(max(1, requests * 3 // 4), lambda: self.bound.crowded or crowded())
        self.places = asyncio.Semaphore(streams)
        """Those of the streams."""
        self._timeout = timeout
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=requests + streams, keepalive_timeout=_KEEP_ALIVE, ssl=httpx2.create_ssl_context()
            ),
            headers={**_headers(sdk, foreign=foreign), **(headers or {})},
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=_proxy(URL(self._url)),
            # One timer for a whole request, so that a server that trickles its answer meets it too. Connecting has
            # less: what could not connect has created nothing, and a create that took too long may have.
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=timeout / 2),
        )

    async def send(
        self, method: str, path: str, content: bytes | None = None, *, creating: bool = False, inside: bool = False
    ) -> Reply:
        """Send a request of a path that is quoted, and return the answer; raises ProviderError and nothing else.

        `creating` says that the work may have begun where no answer comes. Its caller holds the bound already: it
        commits its intent inside, directly before the request. So does the caller of what is sent `inside`, such as
        what a create has to know first: to wait for a second place there would be to wait for itself.
        """
        if creating or inside:
            return await self._send(method, path, content, creating=creating)
        async with self.readers if method == "GET" else nullcontext(), self.bound:
            return await self._send(method, path, content, creating=False)

    async def _send(self, method: str, path: str, content: bytes | None, *, creating: bool) -> Reply:
        url = URL(self._url + path, encoded=True)
        try:
            # A redirected POST would be sent twice.
            async with self._session.request(method, url, data=content, allow_redirects=False) as response:
                body = await _body(response)
        except Exception as error:  # noqa: BLE001 - whatever a server makes the client raise, nothing else may leave
            # Without the cause: its text may repeat the key that the server was given.
            raise explain(error, creating=creating) from None
        if not 200 <= response.status < 300:
            raise rejected(response.status, response.headers, body, key=self.key, creating=creating)
        return Reply(response.headers, body)

    @property
    def can_stream(self) -> bool:
        """Whether there is a place for one more stream, which is to be taken before anything is awaited."""
        return not self.places.locked()

    async def stream(
        self, path: str, content: bytes, reading: Callable[[aiohttp.StreamReader], Read]
    ) -> tuple[Reply, Read | None]:
        """Send a POST that creates, and return the first event of its stream as the answer, with what reads the stream.

        That takes a place, and keeps it until it is closed. A server that answers in one piece leaves nothing to read.
        """
        with ExitStack() as ends:
            await self.places.acquire()
            ends.callback(self.places.release)
            reply, opened = await self.follow(path, content, reading, first=self._timeout, silence=self._timeout)
            if opened is not None:
                opened.ends.enter_context(ends.pop_all())
            return reply, opened

    async def follow(
        self,
        path: str,
        content: bytes,
        reading: Callable[[aiohttp.StreamReader], Read],
        *,
        first: float,
        silence: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Reply, Read | None]:
        """Do what `stream` does, in a place that the caller has taken.

        `first` seconds may pass until the first event or the whole answer is there, `silence` between two reads.
        """
        with ExitStack() as ends:
            try:
                async with asyncio.timeout(first) as limit:
                    response = await self._post(path, content, silence, headers)
                    ends.callback(response.release)
                    reply, opened = await self._begin(response, reading)
            except ProviderError:
                raise
            except Exception as error:  # noqa: BLE001 - as in _send
                raise (stalled(first) if limit.expired() else explain(error, creating=True)) from None
            if opened is not None:
                opened.ends.enter_context(ends.pop_all())
            return reply, opened

    async def _post(
        self, path: str, content: bytes, silence: float | None, headers: Mapping[str, str] | None
    ) -> aiohttp.ClientResponse:
        # As long as it takes, but not without a word: one that stalls ends with an error of its read.
        endless = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout / 2, sock_read=silence)
        url = URL(self._url + path, encoded=True)
        return await self._session.post(url, data=content, allow_redirects=False, timeout=endless, headers=headers)

    async def _begin(
        self, response: aiohttp.ClientResponse, reading: Callable[[aiohttp.StreamReader], Read]
    ) -> tuple[Reply, Read | None]:
        if not 200 <= response.status < 300:
            body = await _body(response)
            raise rejected(response.status, response.headers, body, key=self.key, creating=True)
        if response.content_type != "text/event-stream":
            return Reply(response.headers, await _body(response)), None
        opened = reading(response.content)
        return Reply(response.headers, await opened.begun()), opened

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Read it to its end, decompressed; no server gets more of our memory than its answer can be worth."""
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > _LARGEST:
            raise AnswerTooLong
    return b"".join(pieces)


def encode(body: Mapping[str, Any]) -> bytes:
    """Return a request's body as JSON without what UTF-8 or a database cannot hold; raises ProviderError."""
    try:
        text = _JSON.encode(body)
        if "\\u0000" not in text:
            try:
                return text.encode()
            except UnicodeEncodeError:  # a lone surrogate
                pass
        return _JSON.encode(clean(body)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ProviderError("invalid_request", f"the request cannot be written as JSON: {error}") from None


def _headers(sdk: openai.AsyncOpenAI, *, foreign: bool) -> dict[str, str]:
    given = {
        name: value for name, value in sdk.default_headers.items() if not foreign or name.lower().startswith(_ANYBODYS)
    }
    return {name: value for name, value in {**given, **sdk.auth_headers}.items() if isinstance(value, str)}


def _proxy(url: URL) -> str | None:
    """Return the proxy that the environment names for this server, as the openai client would take it."""
    proxies = getproxies()
    if proxy_bypass(url.host or ""):
        return None
    return proxies.get(url.scheme) or proxies.get("all")
