"""A leg of a run as a stream of events, in OpenAI's forms and order (recorded): to calls, or to the end of the run.

A run that is cancelled or expires meanwhile ends its stream without an event; who looks learns it.
"""

import json
from collections.abc import Iterator

from simulator.streams import CREATED, ENDED, STARTED, Told, pieces
from simulator.thread_runs import Leg, Run
from simulator.thread_steps import hosted_step, step
from simulator.wire import JsonObject

Event = tuple[str, JsonObject]


def told(run: Run, deltas: int) -> Told:
    """Yield the events of the newest leg as they go over the wire, with their places."""
    leg = run.leg
    for event in _before(run):
        yield CREATED, _sent(*event)
    yield STARTED, _sent("thread.run.in_progress", run.shown("in_progress"))
    written = [] if leg.response.outcome.error else list(_written(run, leg, max(1, deltas)))
    for number, event in enumerate(written, 1):
        yield number / (len(written) + 1), _sent(*event)
    status = "requires_action" if leg.calls else leg.response.outcome.status
    for event in _after(run, leg, status):
        yield ENDED, _sent(*event)
    yield ENDED, b"event: done\ndata: [DONE]\n\n"


def _before(run: Run) -> Iterator[Event]:
    """Yield what comes at once: the creation, or the end of the step whose outputs have come."""
    queued = run.shown("queued")
    if len(run.legs) == 1:
        yield "thread.run.created", queued
    else:
        called, answered = run.legs[-2], run.leg.response
        outputs = {item["call_id"]: item["output"] for item in answered.inputs}
        yield "thread.run.step.completed", step(run, called, "completed", answered.created, outputs)
    yield "thread.run.queued", queued


def _written(run: Run, leg: Leg, most: int) -> Iterator[Event]:
    """Yield the steps of what the provider does itself, then the leg's own step as it begins, and what it writes."""
    for item in leg.hosted:
        done = hosted_step(run, leg, item)
        yield "thread.run.step.created", {**done, "status": "in_progress", "completed_at": None, "failed_at": None}
        yield f"thread.run.step.{done['status']}", done
    begun = step(run, leg, "in_progress", None)
    if leg.calls:
        begun["step_details"] = {"type": "tool_calls", "tool_calls": []}
    yield "thread.run.step.created", begun
    yield "thread.run.step.in_progress", begun
    yield from _calls(leg, most) if leg.calls else _message(run, leg, most)


def _calls(leg: Leg, most: int) -> Iterator[Event]:
    for at, item in enumerate(leg.calls):
        function = {"name": item["name"], "arguments": "", "output": None}
        yield _step_delta(leg, {"index": at, "id": item["call_id"], "type": "function", "function": function})
        for piece in pieces(item["arguments"], most):
            yield _step_delta(leg, {"index": at, "type": "function", "function": {"arguments": piece}})


def _step_delta(leg: Leg, call: JsonObject) -> Event:
    delta = {"step_details": {"type": "tool_calls", "tool_calls": [call]}}
    return "thread.run.step.delta", {"id": leg.step_id, "object": "thread.run.step.delta", "delta": delta}


def _message(run: Run, leg: Leg, most: int) -> Iterator[Event]:
    begun = run.written("in_progress", None)
    yield "thread.message.created", begun
    yield "thread.message.in_progress", begun
    for number, piece in enumerate(pieces(leg.text or "", most)):
        text = {"value": piece, **({} if number else {"annotations": []})}
        delta = {"content": [{"index": 0, "type": "text", "text": text}]}
        yield "thread.message.delta", {"id": leg.message_id, "object": "thread.message.delta", "delta": delta}


def _after(run: Run, leg: Leg, status: str) -> Iterator[Event]:
    """Yield what comes with the end of the leg."""
    if status in ("completed", "incomplete") and leg.text is not None:
        yield f"thread.message.{status}", run.written(status, int(leg.response.ends))
        yield "thread.run.step.completed", step(run, leg, "completed", leg.response.ends)
    yield f"thread.run.{status}", run.shown(status)


def _sent(name: str, data: JsonObject) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
