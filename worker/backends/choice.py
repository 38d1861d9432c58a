"""The backends of one process: one for each place that its runs are carried out at, made when it is needed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from worker.assistants.prices import Prices
from worker.backends.assistants.backend import HEADERS, AssistantsBackend
from worker.backends.base import Backend
from worker.backends.foreground.backend import ForegroundBackend
from worker.backends.foreground.chat import Chat
from worker.backends.foreground.connection import Patience
from worker.backends.foreground.stateless import Stateless
from worker.backends.places import DEFAULT_KEY, Place
from worker.backends.responses.backend import ResponsesBackend
from worker.backends.transport.connections import Http
from worker.errors import ProviderError, SettingsError
from worker.settings import Settings

T = TypeVar("T")
_NO_KEY = "none"  # a header must hold something, and servers that ask for no key do not read it


@dataclass(frozen=True, slots=True)
class Server:
    """What it takes to speak to one server."""

    base_url: str | None
    api_key: str
    settings: Settings
    prices: Prices
    requests: int
    foreign: bool
    """An assistant names it; it is not that of OPENAI_BASE_URL."""
    opened: list[Http]
    """Where connections to it are noted."""
    crowded: Callable[[], bool]


def _responses(server: Server) -> Backend:
    return ResponsesBackend(_http(server, streams=server.settings.stream_limit), server.prices)


def _assistants(server: Server) -> Backend:
    foreign = server.settings.foreign_runs
    return AssistantsBackend(_http(server, headers=HEADERS), server.prices, cancels_foreign=foreign == "cancel")


def _chat(server: Server) -> Backend:
    http = _living(server)
    return ForegroundBackend(http, Chat(http.host, server.prices), _patience(server.settings))


def _stateless(server: Server) -> Backend:
    return ForegroundBackend(_living(server), Stateless(server.prices), _patience(server.settings))


def _living(server: Server) -> Http:
    """Return connections that steps can live on: such a step cannot do without a place."""
    return _http(server, streams=max(1, server.settings.stream_limit))


def _http(server: Server, streams: int = 0, headers: Mapping[str, str] | None = None) -> Http:
    http = Http(
        api_key=server.api_key,
        base_url=server.base_url,
        requests=server.requests,
        timeout=server.settings.request_timeout,
        streams=streams,
        headers=headers,
        foreign=server.foreign,
        crowded=server.crowded,
    )
    server.opened.append(http)
    return http


def _patience(settings: Settings) -> Patience:
    return Patience(settings.queued_timeout, settings.stall_timeout, settings.step_timeout)


MAKERS: Mapping[str, Callable[[Server], Backend]] = {
    "responses": _responses,
    "responses-stateless": _stateless,
    "chat": _chat,
    "assistants": _assistants,
}
"""A new protocol is one folder, or one dialect of foreground/, one line here and one in worker/backends/places.py."""


class Backends:
    """Finds the backend of an assistant, or of a conversation; to be made on the loop that uses it."""

    def __init__(
        self,
        settings: Settings,
        prices: Prices,
        requests: int | None = None,
        *,
        crowded: Callable[[], bool],
    ) -> None:
        """Make none yet; `requests` bounds those open at once at each server, in place of the setting.

        Where the process is `crowded` elsewhere, as in its database, no server's runs are hurried on.
        """
        self._settings = settings
        self._prices = prices
        self._requests = requests or settings.request_limit
        self._made: dict[Place, Backend] = {}
        self._opened: list[Http] = []
        self._crowded = crowded

    def place(self, config: Mapping[str, Any]) -> Place:
        """Return where an assistant is served."""
        return Place.of(config, self._settings.backend)

    def at(self, place: Place) -> Backend:
        """Return the backend of a place; raises ProviderError where this process lacks its key or its protocol."""
        if place not in self._made:
            self._made[place] = self._make(place)
        return self._made[place]

    @property
    def crowded(self) -> bool:
        """Whether so many steps wait to be created, or written, that more runs would only wait, and take most memory.

        Of servers only where all that are known are crowded, since a further run may be one of any of them.
        """
        full = bool(self._opened) and all(http.bound.crowded for http in self._opened)
        return full or self._crowded()

    def whose(self, config: Mapping[str, Any]) -> tuple[str, str]:
        """Return the server and the key that an assistant's limits belong to."""
        place = self.place(config)
        return place.base_url or self._settings.openai_base_url or "OpenAI", self._key(place) or _NO_KEY

    def http(self, place: Place) -> Http:
        """Return connections to a place, whatever is spoken there; raises ProviderError where its key is missing."""
        return self._speaking(place, _http)

    def _make(self, place: Place) -> Backend:
        if place.protocol not in MAKERS:
            raise ProviderError("unknown_backend", f"this version knows no backend {place.protocol!r}")
        return self._speaking(place, MAKERS[place.protocol])

    def _speaking(self, place: Place, make: Callable[[Server], T]) -> T:
        key = self._key(place)
        if place.key is not None and key is None:
            # Another worker may have it.
            told = f"{place.key} is not set in this worker, and the assistant's backend needs it"
            raise ProviderError("missing_key", told, transient=True)
        address = place.base_url or self._settings.openai_base_url
        foreign = place.base_url is not None
        shared = (self._settings, self._prices, self._requests)
        server = Server(address, key or _NO_KEY, *shared, foreign, self._opened, self._crowded)
        try:
            return make(server)
        except SettingsError as error:
            raise ProviderError("bad_key", str(error).replace(DEFAULT_KEY, place.key or DEFAULT_KEY)) from None

    def _key(self, place: Place) -> str | None:
        return None if place.key is None else self._settings.key(place.key)

    async def close(self) -> None:
        """Close all connections."""
        for http in self._opened:
            await http.close()
