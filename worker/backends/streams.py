"""A step's stream of server-sent events, read for two of them alone: the first, for the id, and the last, for its end.

Deltas are most of the bytes and most of the CPU of a stream: their data is skipped as it comes and never parsed,
unless somebody is to hear the text.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import aiohttp

from worker.backends.base import Ended, Look, Pending
from worker.backends.bodies import TextEvent, read
from worker.backends.faults import interrupted

# Any of the first three may name the response; OpenAI's first event is always `response.created` (recorded).
BEGUN = frozenset({b"response.created", b"response.queued", b"response.in_progress"})
ENDED = frozenset({b"response.completed", b"response.failed", b"response.incomplete"})
ERROR = b"error"
_TEXT = b"response.output_text.delta"
# An answer of 128,000 tokens takes some 80 MB of events where a server repeats much in each of them.
MOST = 256 * 2**20
Event = tuple[bytes, bytes]
Meaning = Callable[[bytes], Look]
Hear = Callable[[str], None]


class AnswerTooLong(Exception):
    """What a server sends has no end, or none that a worker has the memory for."""


class Reader:
    """Cuts bytes into events (HTML standard, 9.2.6) and keeps those that are `wanted`, by their names."""

    def __init__(self, wanted: frozenset[bytes]) -> None:
        self.wanted = wanted
        self.lines = 0
        """Those with data, wanted or not: comments only keep a connection open."""
        self._size = 0
        self._rest: list[bytes] = []
        self._after_cr = False
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the name and the data of each wanted event that these bytes complete; raises AnswerTooLong."""
        if not chunk:
            return
        self._size += len(chunk)
        if self._size > MOST:
            raise AnswerTooLong(f"the provider's answer takes more than {MOST:,} bytes")
        if self._after_cr:  # the line feed belongs to it
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        self._rest.append(chunk)
        if b"\n" not in chunk and b"\r" not in chunk:  # else a long line would be copied with each of its pieces
            return
        lines = b"".join(self._rest).splitlines(keepends=True)
        self._rest = [] if lines[-1].endswith((b"\n", b"\r")) else [lines.pop()]
        for line in lines:
            if event := self._take(line.rstrip(b"\r\n")):
                yield event

    def _take(self, line: bytes) -> Event | None:
        if not line:
            name, data, self._name, self._data = self._name, self._data, b"", []
            return (name, b"\n".join(data)) if data and name in self.wanted else None
        self.lines += line.startswith(b"data")
        if self._name and self._name not in self.wanted:
            return None
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
        elif field == b"event":
            self._name = value.removeprefix(b" ")
        return None


class Stream:
    """The stream of one response; `meaning` says what the data of its last event means, `hear` is given its text."""

    def __init__(self, content: aiohttp.StreamReader, meaning: Meaning, hear: Hear | None = None) -> None:
        """Read nothing yet; what is in `ends` is called when the stream is closed."""
        self.ends = ExitStack()
        self.broken = False
        self._content = content
        self._meaning = meaning
        self._hear = hear
        self._heard = frozenset({_TEXT}) if hear else frozenset()
        self._reader = Reader(BEGUN | ENDED | self._heard | {ERROR})
        self._events: list[Event] = []

    async def begun(self, key: str) -> bytes:
        """Return the data of the first event.

        Raises ProviderError where there is none, of unknown outcome; the key of the request is taken out of its words.
        """
        name, data = await self._next()
        if name not in BEGUN | ENDED:
            raise interrupted(data, key)
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
            while name in BEGUN or name == _TEXT:
                if self._hear and name == _TEXT:
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
