"""Server-sent events, cut out of the bytes of a stream."""

from collections.abc import Iterator

Event = tuple[bytes, bytes]


class Reader:
    """Cuts bytes into events (HTML standard, 9.2.6) and keeps those that are `wanted`, by their names."""

    def __init__(self, wanted: frozenset[bytes]) -> None:
        self.wanted = wanted
        self._rest = b""
        self._after_cr = False
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the name and the data of each wanted event that these bytes complete."""
        if not chunk:
            return
        if self._after_cr:  # the line feed belongs to it
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        lines = (self._rest + chunk).splitlines(keepends=True)
        self._rest = lines.pop() if lines and not lines[-1].endswith((b"\n", b"\r")) else b""
        for line in lines:
            if event := self._take(line.rstrip(b"\r\n")):
                yield event

    def _take(self, line: bytes) -> Event | None:
        if not line:
            name, data, self._name, self._data = self._name, self._data, b"", []
            return (name, b"\n".join(data)) if data and name in self.wanted else None
        if self._name and self._name not in self.wanted:
            return None
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
        elif field == b"event":
            self._name = value.removeprefix(b" ")
        return None
