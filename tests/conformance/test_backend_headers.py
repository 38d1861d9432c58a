"""What of the environment reaches a server: everything that of OPENAI_BASE_URL, nothing one that is named beside it."""

import asyncio
import contextlib

import pytest

from tests.scripted import Request, answer, saying, scripted, step
from worker.assistants.prices import Prices
from worker.backends.choice import Backends
from worker.backends.places import PROTOCOLS, Place
from worker.errors import ProviderError
from worker.settings import Settings

SECRETS = {"OPENAI_ORG_ID": "org-1", "OPENAI_PROJECT_ID": "proj-1", "OPENAI_CUSTOM_HEADERS": "X-Gateway: let-me-in"}
HELD = ("org-1", "proj-1", "let-me-in", "sk-the-key-of-openai")


def asked(protocol: str, *, named: bool, key: str | None = None) -> list[Request]:
    """Return what a step sends to the server, which refuses it; `key` is the server's own."""

    async def story() -> list[Request]:
        async with scripted(saying(answer(400, {"error": {"message": "no"}}))) as server:
            environment = {"OPENAI_API_KEY": "sk-the-key-of-openai", "DATABASE_URL": "sqlite:///x.db"}
            environment |= {} if key is None else {"RUNWRIGHT_KEY_OWN": key}
            settings = Settings.from_env(environment | ({} if named else {"OPENAI_BASE_URL": server.url}))
            backends = Backends(settings, Prices.load(), crowded=lambda: False)
            own = {} if key is None else {"api_key": "RUNWRIGHT_KEY_OWN"}
            given = {"protocol": protocol, "base_url": server.url, **own} if named else protocol
            backend = backends.at(Place.of({"backend": given}, "responses"))
            with contextlib.suppress(ProviderError):
                await backend.create(step())
            await backends.close()
            return server.requests

    return asyncio.run(story())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("named", [True, False])
def test_headers_of_the_environment(protocol: str, named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: organization, project and headers of one's own are for the server of OPENAI_BASE_URL alone."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    requests = asked(protocol, named=named)
    assert requests
    for request in requests:
        told = " ".join(request.headers.values())
        assert [secret in told for secret in HELD] == [not named] * len(HELD)
        assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_gets_the_key_that_its_assistant_names(protocol: str) -> None:
    """Expected: the key of its own variable with every request, and nobody else's."""
    requests = asked(protocol, named=True, key="sk-its-own")
    assert requests
    assert {request.headers["authorization"] for request in requests} == {"Bearer sk-its-own"}
