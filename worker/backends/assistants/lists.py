"""The lists of Assistants v2, which come page by page."""

from collections.abc import AsyncIterator
from typing import TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from worker.backends.assistants.bodies import Page
from worker.backends.transport.connections import Http

Entry = TypeVar("Entry", bound=BaseModel)


async def listed(http: Http, path: str, page: type[Page[Entry]], *, inside: bool = False) -> AsyncIterator[Entry]:
    """Yield what a list holds; its path says the order in a query, `inside` is that of Http.send."""
    after = ""
    while True:
        found = (await http.send("GET", f"{path}&limit=100{after}", inside=inside)).read(page)
        for one in found.data:
            yield one
        more = f"&after={quote(found.last_id or '', safe='')}"
        if not found.has_more or not found.last_id or more == after:
            return
        after = more
