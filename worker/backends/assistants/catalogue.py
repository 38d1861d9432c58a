"""The assistants at a server that our configurations stand for: found by their metadata, else made, and remembered."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from tools.registry import Tool
from worker.backends.assistants import requests
from worker.backends.assistants.bodies import Made, Page
from worker.backends.assistants.lists import listed
from worker.backends.transport.connections import Http, encode

_KEY = "runwright"
_MOST = 1000


class Catalogue:
    """Of one server; used within the slot of the create that needs an assistant."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._known: OrderedDict[str, str] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()

    async def id_of(self, config: Mapping[str, Any], tools: Iterable[Tool]) -> str:
        """Return the assistant of a configuration."""
        body = requests.assistant(config, tools)
        key = requests.fingerprint(body)
        if key not in self._known:
            async with self._one_at_a_time:  # a thousand runs that begin together make one
                if key not in self._known:
                    self._keep(key, await self._found(key) or await self._made(key, body))
        return self._known[key]

    def forget(self, assistant_id: str) -> None:
        """Look for it anew when it is needed: somebody has deleted it."""
        self._known = OrderedDict((key, one) for key, one in self._known.items() if one != assistant_id)

    def _keep(self, key: str, assistant_id: str) -> None:
        self._known[key] = assistant_id
        if len(self._known) > _MOST:
            self._known.popitem(last=False)

    async def _found(self, key: str) -> str | None:
        """Return the oldest, so that all workers take the same one."""
        async for one in listed(self._http, "/assistants?order=asc", Page[Made], inside=True):
            if one.says(_KEY) == key:
                return one.id
        return None

    async def _made(self, key: str, body: requests.Body) -> str:
        """Make one; where another worker did at the same time, the older one is taken, and the younger left."""
        content = encode({**body, "metadata": {_KEY: key}})
        made = (await self._http.send("POST", "/assistants", content, inside=True)).read(Made).id
        return await self._found(key) or made
