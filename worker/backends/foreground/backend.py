"""Protocols that keep nothing: one call for each step, read as it comes; the step lives on its connection.

What they share stands here: the conversation comes from our database and is cut as the assistant says, silence is
noticed, an answer in one piece is as good as a stream. What they say differs, and is a dialect of each.
"""

import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import quote
from uuid import uuid4

from worker import tokens
from worker.backends.base import Created, Ended, Failed, Step, Tail
from worker.backends.foreground.connection import Connection, PartialAnswer, Patience
from worker.backends.places import Capabilities
from worker.backends.transport.connections import Http, encode
from worker.backends.transport.faults import unreadable
from worker.errors import ProviderError
from worker.response import Item, Opened, Usage
from worker.truncation import truncated

_LONGEST_ID = 200
# Ollama's ids are `chatcmpl-` and a number below a thousand (its middleware/openai.go): nothing to be known by.
_TELLING_ID = 20
_GONE = Failed("interrupted", "the connection that the step lived on is gone", Usage(), transient=True)


class Dialect(Protocol):
    """What one protocol says in its own way."""

    can: Capabilities
    path: str

    def said(self, message: Mapping[str, Any]) -> Sequence[Item]:
        """Return a message of a thread, {"role", "content"} of text parts, as items."""
        ...

    def asked(self, step: Step) -> list[Item]:
        """Return the step's own input: outputs of tools, then the user's message."""
        ...

    def body(self, step: Step, items: Sequence[Item]) -> dict[str, Any]:
        """Return the request that gives the model these items."""
        ...

    def answer(self, step: Step, asked: Sequence[Item], sent: int) -> PartialAnswer:
        """Return what reads the answer to a request of so many bytes."""
        ...


class ForegroundBackend:
    """Speaks one dialect to one server with one key."""

    def __init__(self, http: Http, dialect: Dialect, patience: Patience) -> None:
        """Take the server's connections."""
        self._http = http
        self.slots = http.places  # steps live on their connections
        self.readers = http.readers
        self._dialect = dialect
        self._patience = patience
        self.can = dialect.can

    async def open_conversation(self, thread_id: str, history: Sequence[Mapping[str, Any]] = ()) -> Opened:
        """Return a conversation of our own, with what was said so far."""
        said = (item for message in history for item in self._dialect.said(message))
        return Opened(f"local_{uuid4().hex}", tuple(said))

    async def create(self, step: Step) -> Created:
        """Ask once; the step has been taken on when the first event, or the whole answer, is there."""
        dialect, asked = self._dialect, self._dialect.asked(step)
        beside = tokens.of(dialect.body(step, ()))
        body = encode(dialect.body(step, await truncated([*step.history, *asked], step.config, beside)))
        answer = dialect.answer(step, asked, len(body))
        reading = partial(Connection, answer=answer, patience=self._patience, key=self._http.key)
        first, named = self._patience.first(step), {"X-Client-Request-Id": _request_id(step)}
        try:
            reply, connection = await self._http.follow(dialect.path, body, reading, first=first, headers=named)
        except ProviderError as error:
            raise _worked(error) from None
        connection = connection or reading(None, end=_whole(answer, reply.body))
        connection.ends.callback(self._http.places.release)
        ident, request_id = _known_by(answer.id), reply.request_id
        return Created(ident, request_id, connection, keeps_slot=True, headers=reply.headers)

    async def adopt(self, step: Step, after: str) -> None:
        """Find nothing: the server keeps nothing."""

    async def tail(self, conversation: str) -> Tail:
        """Tell that no call is open which we do not know: nobody but us writes the conversation."""
        return Tail("", ())

    async def look(self, provider_id: str) -> Ended:
        """Tell that the step is gone: it lived on its connection."""
        return _GONE

    async def cancel(self, provider_id: str) -> None:
        """Do nothing: the closed connection has stopped the step."""

    async def delete_conversation(self, conversation: str) -> None:
        """Do nothing: the server keeps none."""


def _worked(error: ProviderError) -> ProviderError:
    """Return what a refusal means where the answer comes after the work: a 500 may be about that, and have cost it.

    llama.cpp says 500 where it cannot parse the call that its model has written (github.com/ggml-org/llama.cpp/issues/
    23838). Asked again and again until the run's time is over, it would work again and again.
    """
    if error.status != HTTPStatus.INTERNAL_SERVER_ERROR:
        return error
    return ProviderError(error.code, error.message, unknown=True, status=error.status)


def _whole(answer: PartialAnswer, body: bytes) -> Ended:
    try:
        return answer.whole(body)
    except ValueError as error:
        raise unreadable(str(error), creating=True) from None


def _known_by(ident: str | None) -> str:
    """Return an id that no other step has, where that of the server may be none or another's too."""
    if ident is not None and len(ident) >= _TELLING_ID:
        return ident
    return f"{ident or 'local'}_{uuid4().hex}"[:_LONGEST_ID]


def _request_id(step: Step) -> str:
    """Return what finds the request at OpenAI's support: up to 512 ASCII characters, another for each request."""
    return f"{quote(step.run_id, safe='')[:400]}/{step.attempt}/{step.number}/{secrets.token_hex(8)}"
