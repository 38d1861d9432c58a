"""A completion as a stream of chunks: the role, the pieces of text or calls, the reason of the end, usage if asked."""

import json
from collections.abc import Iterator

from simulator.chat import failure, finish_reason, head, text, tool_calls, usage
from simulator.responses import Response
from simulator.streams import ENDED, STARTED, Told, pad, pieces
from simulator.wire import JsonObject


def told(response: Response, body: JsonObject, deltas: int) -> Told:
    """Yield the chunks as they go over the wire, with their places; a failure comes as an error in place of the end."""
    options = body.get("stream_options") or {}
    error = response.outcome.error
    written = [] if error else list(_deltas(response, max(1, deltas)))
    begun = {"role": "assistant", "content": None if tool_calls(response) else "", "refusal": None}
    for number, delta in enumerate([begun, *written]):
        place = number / (len(written) + 1) if number else STARTED
        yield place, _chunk(response, options, delta, None)
    if error:
        yield ENDED, _sent(json.dumps(failure(error).body))
        return
    yield ENDED, _chunk(response, options, {}, finish_reason(response))
    if options.get("include_usage"):
        yield ENDED, _sent(json.dumps({**_head(response), "choices": [], "usage": usage(response)}))
    yield ENDED, _sent("[DONE]")


def _deltas(response: Response, most: int) -> Iterator[JsonObject]:
    for piece in pieces(text(response) or "", most):
        yield {"content": piece}
    for at, call in enumerate(tool_calls(response)):
        begun = {**call, "function": {"name": call["function"]["name"], "arguments": ""}}
        yield {"tool_calls": [{"index": at, **begun}]}
        for piece in pieces(call["function"]["arguments"], most):
            yield {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}


def _chunk(response: Response, options: JsonObject, delta: JsonObject, finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    used = {"usage": None} if options.get("include_usage") else {}
    padding = pad(json.dumps(delta), options.get("include_obfuscation") is not False)
    return _sent(json.dumps({**_head(response), "choices": [choice], **used, **padding}))


def _head(response: Response) -> JsonObject:
    return head(response, "chat.completion.chunk")


def _sent(data: str) -> bytes:
    return f"data: {data}\n\n".encode()
