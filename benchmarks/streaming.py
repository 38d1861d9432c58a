"""A response of the stand-in as server-sent events, in OpenAI's forms: dear to read as it is, and cheap to write.

The deltas of a text are made once for all responses, and leave in ten pieces over the time that the response takes.
"""

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"x-request-id: req_stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_PIECES = 10
Json = dict[str, Any]


class Streaming:
    """One response on its way; `look` returns its body as it is now, `ends` is called just before the last event."""

    def __init__(
        self, transport: asyncio.Transport, output: Json, look: Callable[[], Json], ends: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._look = look
        self._ends = ends
        self._loop = asyncio.get_running_loop()
        self._pieces = list(_pieces(output))

    def begin(self, seconds: float) -> None:
        """Write the first events now, the last when the response is ready, in so many seconds, and the rest between."""
        self._write(HEAD, _chunk(_event("created", self._look()) + _event("in_progress", self._look())))
        self._pause = seconds / (len(self._pieces) + 1)
        self._loop.call_later(self._pause, self._go_on)

    def _go_on(self) -> None:
        if self._pieces:
            self._write(_chunk(self._pieces.pop(0)))
            self._loop.call_later(self._pause, self._go_on)
        elif (body := self._look())["status"] == "completed":
            last = _chunk(_event("completed", body))
            self._ends()
            self._write(last, _chunk(b""))
        else:  # the timers of a loop are a little early
            self._loop.call_later(0.001, self._go_on)

    def _write(self, *pieces: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.writelines(pieces)


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def _event(name: str, response: Json) -> bytes:
    return _told(f"response.{name}", {"response": response})


def _told(kind: str, data: Json) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': 0, **data})}\n\n".encode()


def _pieces(item: Json) -> list[bytes]:
    """Return the events of one item of the output: those of its deltas are made once, whosever they are."""
    added = _told("response.output_item.added", {"output_index": 0, "item": {**item, "status": "in_progress"}})
    done = _told("response.output_item.done", {"output_index": 0, "item": item})
    kind, text = _kind_and_text(item)
    first, *others = _DELTAS.setdefault(text, _deltas(kind, text))
    return [added + first, *others, done]


def _kind_and_text(item: Json) -> tuple[str, str]:
    if item["type"] == "message":
        return "response.output_text.delta", item["content"][0]["text"]
    return "response.function_call_arguments.delta", item["arguments"]


def _deltas(kind: str, text: str) -> list[bytes]:
    """Return one event for each word, in pieces."""
    where = {"item_id": f"msg_{0:048x}", "output_index": 0, "content_index": 0, "logprobs": []}
    words = [
        _told(kind, {**where, "delta": f"{word} ", "obfuscation": "x" * (16 - len(word) % 16)}) for word in text.split()
    ]
    cuts = [round(len(words) * number / _PIECES) for number in range(_PIECES + 1)]
    return [b"".join(words[start:end]) for start, end in pairwise(cuts) if start < end]


_DELTAS: dict[str, list[bytes]] = {}
