"""Server-sent events, cut out of the bytes of a stream."""

from collections.abc import Iterator

# An answer of 128,000 tokens takes some 80 MB of events where a server repeats much in each of them.
MOST = 256 * 2**20
Event = tuple[bytes, bytes]


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
