"""A step's stream of server-sent events, read for two of them alone: the first, for the id, and the last, for its end.

Deltas are most of the bytes and most of the CPU of a stream: their data is skipped as it comes and never parsed,
unless somebody is to hear the text.
"""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

import aiohttp

from worker.backends.base import Ended, Look, Pending
from worker.backends.responses.bodies import TextEvent
from worker.backends.transport.bodies import read
from worker.backends.transport.faults import interrupted
from worker.backends.transport.sse import Event, Reader

# Any of the first three may name the response; OpenAI's first event is always `response.created` (recorded).
BEGUN = frozenset({b"response.created", b"response.queued", b"response.in_progress"})
ENDED = frozenset({b"response.completed", b"response.failed", b"response.incomplete"})
ERROR = b"error"
TEXT = b"response.output_text.delta"
_Meaning = Callable[[bytes], Look]
_Hear = Callable[[str], None]


class Stream:
    """The stream of one response; `meaning` says what the data of its last event means, `hear` is given its text."""

    def __init__(self, content: aiohttp.StreamReader, meaning: _Meaning, key: str, hear: _Hear | None = None) -> None:
        """Read nothing yet; what is in `ends` is called when it is closed. The `key` is kept out of its words."""
        self.ends = ExitStack()
        self.broken = False
        self._content = content
        self._meaning = meaning
        self._key = key
        self._hear = hear
        self._heard = frozenset({TEXT}) if hear else frozenset()
        self._reader = Reader(BEGUN | ENDED | self._heard | {ERROR})
        self._events: list[Event] = []

    async def begun(self) -> bytes:
        """Return the data of the first event.

        Raises ProviderError where there is none, of unknown outcome.
        """
        name, data = await self._next()
        if name not in BEGUN | ENDED:
            raise interrupted(data, self._key)
        if name in ENDED:
            self._events.insert(0, (name, data))
        self._reader.wanted = ENDED | self._heard | {ERROR}
        return data

    async def ended(self, seconds: float) -> Ended | None:
        """Return how the response ended, None where it has not so soon, or where the stream is `broken`."""
        try:
            async with asyncio.timeout(seconds):
                return await self._ended()
        except TimeoutError:
            return None

    async def _ended(self) -> Ended | None:
        try:
            name, data = await self._next()
            while name in BEGUN or name == TEXT:
                if self._hear and name == TEXT:
                    self._hear(read(data, TextEvent).delta)
                name, data = await self._next()
            look = self._meaning(data) if name in ENDED else None
        except Exception:  # noqa: BLE001 - whatever it is, a look at the response tells what it has come to
            look = None
        self.broken = look is None or isinstance(look, Pending)
        return None if isinstance(look, Pending) else look

    async def _next(self) -> Event:
        """Return the next event, one without name and data where there will be none."""
        while not self._events:
            if not (chunk := await self._content.readany()):
                return b"", b""
            self._events += self._reader.feed(chunk)
        return self._events.pop(0)

    def close(self) -> None:
        """Leave the stream; the response goes on."""
        self.ends.close()
