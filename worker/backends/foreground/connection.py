"""The connection that a step lives on: read to the answer's end, and given up where it is silent."""

import asyncio
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import Protocol

import aiohttp

from worker.backends.base import Ended, Failed, Step
from worker.backends.transport.faults import interrupted, without_key
from worker.backends.transport.sse import AnswerTooLong, Reader

_CLOSING = 0.1  # seconds


class PartialAnswer(Protocol):
    """What the model answers, put together from the events that tell it."""

    id: str | None
    """The provider's, once it has said it."""
    begun: bool
    """The model has begun to answer, so that silence is not its queue any more."""
    wanted: frozenset[bytes]
    """Names of the events that tell anything; b"" is that of those without a name."""

    def take(self, name: bytes, data: bytes) -> Ended | None:
        """Return how the step ended, once an event has told."""
        ...

    def whole(self, body: bytes) -> Ended:
        """Return how it ended from an answer in one piece; ValueError says what is wrong with that."""
        ...

    def cut(self, code: str, message: str) -> Ended:
        """Return what it has come to where nothing more is told, and why that is."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait for the model to begin, and for more of what it has begun."""

    queued: float
    stall: float
    step: float | None = None
    """For a whole step of an assistant that does not say."""

    def first(self, step: Step) -> float:
        """Return the seconds until the first event of a step."""
        limit = step.config.get("step_timeout", self.step)
        return self.queued if limit is None else min(self.queued, limit)


class Connection:
    """The connection that a step lives on."""

    broken = False  # it always tells an end

    def __init__(
        self,
        content: aiohttp.StreamReader | None,
        *,
        answer: PartialAnswer,
        patience: Patience,
        key: str,
        end: Ended | None = None,
    ) -> None:
        """Read nothing yet; `end` is known where the answer came in one piece. The `key` is kept out of its words."""
        self.ends = ExitStack()
        self._key = key
        self._content = content
        self._answer = answer
        self._patience = patience
        self._reader = Reader(answer.wanted)
        self._end = end
        self._events = 0
        self._opened = self._heard = self._told = monotonic()

    async def begun(self) -> bytes:
        """Read until the first event, which tells the answer's id."""
        while not self._events:
            chunk = await self._content.readany() if self._content else b""
            if not chunk:
                raise interrupted(b"", self._key)
            self._take(chunk)
        return b""

    async def ended(self, seconds: float) -> Ended | None:
        """Return how the step ended, None where it has not so soon."""
        until = monotonic() + seconds
        while self._end is None and monotonic() < until:
            try:
                async with asyncio.timeout(max(0.0, min(until, self._silent_at()) - monotonic())):
                    await self._read()
            except TimeoutError:
                if (now := monotonic()) >= self._silent_at():
                    told = f"the provider said nothing more for {now - self._told:.0f} s"
                    self._end = self._answer.cut("stalled", told)
        if self._end is not None:
            await self._read_out()
        if isinstance(self._end, Failed):
            return replace(self._end, message=without_key(self._end.message, self._key))
        return self._end

    def _silent_at(self) -> float:
        # Comments keep a connection open, and do not say that the model has begun, or that it goes on.
        if not self._answer.begun:
            return self._opened + self._patience.queued
        return min(self._heard + self._patience.stall, self._told + self._patience.queued)

    async def _read(self) -> None:
        while self._end is None:
            try:
                chunk = await self._content.readany() if self._content else b""
            except Exception as error:  # noqa: BLE001 - whatever a broken connection makes the client raise
                told = f"the connection broke ({type(error).__name__})"
                self._end = self._answer.cut("interrupted", told)
                return
            if not chunk:
                self._end = self._answer.cut("interrupted", "the stream ended before the answer did")
                return
            try:
                self._take(chunk)
            except AnswerTooLong as error:
                self._end = self._answer.cut("too_long", str(error))

    async def _read_out(self) -> None:
        """Read to the stream's own close, which is mostly all that comes behind the end.

        Only then does the connection serve the next step; one that is left before has to be closed.
        """
        with suppress(Exception):  # the end is known, whatever becomes of the connection
            async with asyncio.timeout(_CLOSING):
                while self._content and await self._content.readany():
                    pass

    def _take(self, chunk: bytes) -> None:
        """Read on; what comes behind the end is left."""
        lines = self._reader.lines
        for event in self._reader.feed(chunk):
            self._events += 1
            if self._end is None:
                self._end = self._answer.take(*event)
        self._heard = monotonic()
        if self._reader.lines > lines:
            self._told = self._heard

    def close(self) -> None:
        """Close the connection and give its place back; a server that notices stops."""
        self.ends.close()
