"""A stand-in for the provider that costs next to nothing: raw HTTP/1.1 on an asyncio protocol, no checks of requests.

It speaks what a worker uses: conversations and their items, background responses and their streams, cancel. Each run
is one tool call and one answer; a response is ready when its time has come, and `completed_at` is that time as a float.
`/_provider/reset` (POST) takes `latency` (seconds of a whole run) and `spread` (the share by which each of its two
responses differs from half of that), and forgets everything; `/_provider/counters` tells what has happened since.
"""

import asyncio
import heapq
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.streaming import Streaming

MODEL = "gpt-5-mini"
CALL = {"name": "calculate", "arguments": '{"expression": "12*7+3"}'}
ANSWER = "Twelve times seven and three is 87. " * 20  # a response of about 2 KB
_PHASES = 2
_LINES = {200: b"HTTP/1.1 200 OK", 400: b"HTTP/1.1 400 Bad Request", 404: b"HTTP/1.1 404 Not Found"}
_LOCKED = "Another process is currently operating on this conversation. Please retry in a few seconds."

Json = dict[str, Any]


class Provider:
    """Conversations, responses and what is counted of them."""

    def __init__(self) -> None:
        self.open_connections = 0
        self._number = 0  # goes on over a reset: an id that comes again is one that the worker's database knows
        self.reset({})

    def reset(self, asked: Json) -> Json:
        """Forget everything, and take on the latency that is asked for."""
        self._latency = float(asked.get("latency", 0.0))
        self._spread = float(asked.get("spread", 0.0))
        self._random = random.Random(int(asked.get("seed", 1)))
        self.requests: Counter[str] = Counter()
        self._responses: dict[str, Json] = {}
        self._conversations: dict[str, Json] = {}
        self._runs: Counter[str] = Counter()
        self._ends: dict[str, float] = {}
        self._going: list[float] = []
        self._ended = self._overlaps = self._most = 0
        self.most_connections = self.open_connections
        self._first = 0.0
        self._spent = time.process_time()
        return {}

    def count_connection(self) -> None:
        """Count one that is open from now on."""
        self.open_connections += 1
        self.most_connections = max(self.most_connections, self.open_connections)

    def counters(self, *, ends: bool) -> Json:
        """Tell what was asked for and made, and with `ends` when the last response of each run was ready."""
        return {
            "requests": sum(self.requests.values()),
            "by_kind": dict(self.requests),
            "responses_per_run": dict(Counter(self._runs.values())),
            "overlaps": self._overlaps,
            "runs": len(self._runs),
            "connections": self.most_connections,
            "in_flight": self._in_flight(),
            "max_in_flight": self._most,
            "first_request": self._first,
            "cpu": time.process_time() - self._spent,
            "ends": self._ends if ends else {},
        }

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Json]:
        """Carry out one request."""
        if path.startswith("/_provider/"):
            asked = json.loads(body or b"{}")
            return 200, self.counters(ends="ends=1" in path) if method == "GET" else self.reset(asked)
        self._first = self._first or time.time()
        kind, *rest = path.partition("?")[0].removeprefix("/v1/").split("/")
        name = f"{method} {kind}" + ("/{id}" if rest else "") + ("/" + rest[1] if len(rest) > 1 else "")
        self.requests[name] += 1
        handler = self._handlers().get(name)
        return handler(rest[0] if rest else "", json.loads(body or b"{}")) if handler else _refused(404, "not_found")

    def _handlers(self) -> dict[str, Callable[[str, Json], tuple[int, Json]]]:
        return {
            "GET responses/{id}": self._look,
            "POST responses": self._create,
            "POST responses/{id}/cancel": self._cancel,
            "POST conversations": self._converse,
            "DELETE conversations/{id}": self._forget,
            "GET conversations/{id}/items": self._items,
            "POST conversations/{id}/items": self._add,
        }

    def _next(self, prefix: str) -> str:
        self._number += 1
        return f"{prefix}_{self._number:048x}"

    def _converse(self, _id: str, body: Json) -> tuple[int, Json]:
        ident = self._next("conv")
        self._conversations[ident] = {"items": list(body.get("items", ())), "until": 0.0}
        return 200, {
            "id": ident,
            "object": "conversation",
            "created_at": int(time.time()),
            "metadata": body.get("metadata"),
        }

    def _forget(self, ident: str, _body: Json) -> tuple[int, Json]:
        self._conversations.pop(ident, None)
        return 200, {"id": ident, "object": "conversation.deleted", "deleted": True}

    def _items(self, ident: str, _body: Json) -> tuple[int, Json]:
        found = self._conversations.get(ident, {"items": []})["items"]
        return 200, {"object": "list", "data": found[::-1], "has_more": False, "last_id": None}

    def _add(self, ident: str, body: Json) -> tuple[int, Json]:
        self._conversations[ident]["items"] += body.get("items", [])
        return 200, {"object": "list", "data": body.get("items", []), "has_more": False}

    def _create(self, _id: str, body: Json) -> tuple[int, Json]:
        now = time.time()
        given = body.get("conversation")
        conversation = self._conversations.get(given["id"] if isinstance(given, dict) else str(given))
        if conversation and conversation["until"] > now:
            self._overlaps += 1
            return _refused(400, "conversation_locked", _LOCKED)
        half = self._latency / _PHASES
        until = now + half * (1 + self._random.uniform(-self._spread, self._spread))
        given_input = body.get("input")
        answers = isinstance(given_input, list) and given_input[0].get("type") == "function_call_output"
        output = self._message() if answers else self._call()
        response = {
            "id": self._next("resp"),
            "object": "response",
            "created_at": int(now),
            "status": "queued",
            "background": True,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "metadata": body.get("metadata"),
            "model": body.get("model"),
            "conversation": given,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": body.get("tools", []),
            "output": [],
            "usage": None,
        }
        if conversation:
            conversation["until"] = until
            conversation["items"] += output
        self._responses[response["id"]] = {"until": until, "output": output, "body": response}
        self._count((body.get("metadata") or {}).get("run_id", ""), until, last=answers)
        return 200, response

    def _count(self, run: str, until: float, *, last: bool) -> None:
        self._runs[run] += 1
        if last:
            self._ends[run] = until
            heapq.heappush(self._going, until)
        self._most = max(self._most, self._in_flight())

    def _in_flight(self) -> int:
        """Count the runs of which something was created and whose answer is not yet ready."""
        now = time.time()
        while self._going and self._going[0] <= now:
            heapq.heappop(self._going)
            self._ended += 1
        return len(self._runs) - self._ended

    def _call(self) -> list[Json]:
        ids = {"id": self._next("fc"), "call_id": self._next("call")}
        return [{**ids, "type": "function_call", "status": "completed", **CALL}]

    def _message(self) -> list[Json]:
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ANSWER}
        ident = self._next("msg")
        return [{"id": ident, "type": "message", "status": "completed", "role": "assistant", "content": [part]}]

    def _look(self, ident: str, _body: Json) -> tuple[int, Json]:
        kept = self._responses.get(ident)
        if kept is None:
            return _refused(404, "not_found")
        body = kept["body"]
        if body["status"] in {"queued", "in_progress"}:
            if kept["until"] > time.time():
                return 200, {**body, "status": "in_progress"}
            body |= {"status": "completed", "completed_at": kept["until"], "output": kept["output"], "usage": _USAGE}
        return 200, body

    def stream(self, created: Json, transport: asyncio.Transport) -> None:
        """Tell the events of a response that was just created; its run has ended when the last of them is told."""
        kept, run = self._responses[created["id"]], (created.get("metadata") or {}).get("run_id", "")

        def ends() -> None:
            if self._ends.get(run) == kept["until"]:
                self._ends[run] = time.time()

        (item,) = kept["output"]
        streaming = Streaming(transport, item, lambda: self._look(created["id"], {})[1], ends)
        streaming.begin(kept["until"] - time.time())

    def _cancel(self, ident: str, body: Json) -> tuple[int, Json]:
        status, response = self._look(ident, body)
        if status == 200 and response["status"] != "completed":
            self._responses[ident]["body"]["status"] = response["status"] = "cancelled"
        return status, response


_USAGE = {
    "input_tokens": 60,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 80,
}


def _refused(status: int, code: str, message: str = "no such thing") -> tuple[int, Json]:
    return status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


class Connection(asyncio.Protocol):
    """One keep-alive connection: requests with a Content-Length, one after another."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._buffer = b""
        self._counts = False
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of it; it counts from its first request, unless that is at a side door."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it no more."""
        self._provider.open_connections -= self._counts

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            _, found, length = head.lower().partition(b"content-length:")
            size = int(length.split(b"\r\n", 1)[0]) if found else 0
            if len(self._buffer) < end + 4 + size:
                return
            body, self._buffer = self._buffer[end + 4 : end + 4 + size], self._buffer[end + 4 + size :]
            method, path, _ = head.split(b" ", 2)
            if not (self._counts or path.startswith(b"/_provider")):
                self._counts = True
                self._provider.count_connection()
            status, answer = self._provider.answer(method.decode(), path.decode(), body)
            if status == 200 and path == b"/v1/responses" and b'"stream": true' in body:
                self._provider.stream(answer, self._transport)
            else:
                self._write(status, answer)

    def _write(self, status: int, answer: Json) -> None:
        content = json.dumps(answer).encode()
        self._transport.write(
            b"%b\r\ncontent-type: application/json\r\nx-request-id: req_%d\r\ncontent-length: %d\r\n\r\n%b"
            % (_LINES[status], time.monotonic_ns(), len(content), content)
        )


async def serve(ready_file: str) -> None:
    """Listen on a free port of 127.0.0.1, write the base URL into the file, and serve until the process is ended."""
    provider = Provider()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(provider), "127.0.0.1", 0, backlog=8192)
    draft = Path(f"{ready_file}.draft")
    draft.write_text(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")  # noqa: ASYNC240 - before it serves
    draft.replace(ready_file)  # noqa: ASYNC240 - before it serves
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
