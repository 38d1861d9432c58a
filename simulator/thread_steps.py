"""The steps of a run: what each of its legs did, as Assistants v2 lists it."""

from simulator.chat import call
from simulator.hosted import step_call
from simulator.thread_runs import Leg, Run
from simulator.threads_wire import usage
from simulator.wire import JsonObject

_TIMES = ("cancelled", "completed", "expired", "failed")


def steps(run: Run, now: float, *, content: bool = False) -> list[JsonObject]:
    """Return the steps that have begun by now, oldest first: one that calls, or one that has written its message.

    `content` says whether the text of what a file search has found is asked for.
    """
    found = []
    for at, leg in enumerate(run.legs):
        if leg.response.ends <= now and not leg.response.cancelled:
            found += [hosted_step(run, leg, item, content=content) for item in leg.hosted]
        answered = run.legs[at + 1].response if at + 1 < len(run.legs) else None
        outputs = {item["call_id"]: item["output"] for item in answered.inputs} if answered else None
        if leg.calls and leg.response.ends <= now and not leg.response.cancelled:
            status, end = ("completed", answered.created) if answered else _end(run, now)
            found.append(step(run, leg, status, end, outputs))
        elif leg.text is not None and run.message() and not run.is_active(now):
            found.append(step(run, leg, "completed", run.end[0]))
    return found


def _end(run: Run, now: float) -> tuple[str, float | None]:
    """Return how a step stands whose outputs have not come."""
    end, status = run.end
    return (status, end) if end <= now else ("in_progress", None)


def step(run: Run, leg: Leg, status: str, end: float | None, outputs: dict[str, str] | None = None) -> JsonObject:
    """Return a step in this status, which it has reached at `end`; outputs by the ids of the calls, once they came."""
    used = leg.response.outcome.usage
    return {
        "id": leg.step_id,
        "object": "thread.run.step",
        "created_at": int(leg.response.starts),
        "run_id": run.id,
        "assistant_id": run.assistant_id,
        "thread_id": run.thread_id,
        "type": "tool_calls" if leg.calls else "message_creation",
        "status": status,
        **{f"{kind}_at": int(end) if end is not None and kind == status else None for kind in _TIMES},
        "expires_at": int(run.expires),
        "last_error": None,
        "step_details": details(leg, outputs),
        "usage": usage([used]) if used and status == "completed" else None,
    }


def hosted_step(run: Run, leg: Leg, item: JsonObject, *, content: bool = False) -> JsonObject:
    """Return the step of a call that the provider has made itself, which it tells only when it has ended."""
    status = "completed" if item["status"] == "completed" else "failed"
    call = step_call(item, content=content)
    return {
        **step(run, leg, status, leg.response.ends),
        "id": f"step_{item['id'][-24:]}",
        "type": "tool_calls",
        "step_details": {"type": "tool_calls", "tool_calls": [call]},
        "usage": None,
    }


def details(leg: Leg, outputs: dict[str, str] | None = None) -> JsonObject:
    """Return what a step did: the calls with their outputs, or the id of its message."""
    if not leg.calls:
        return {"type": "message_creation", "message_creation": {"message_id": leg.message_id}}
    return {"type": "tool_calls", "tool_calls": [_call(item, outputs or {}) for item in leg.calls]}


def _call(item: JsonObject, outputs: dict[str, str]) -> JsonObject:
    told = call(item)
    return {**told, "function": {**told["function"], "output": outputs.get(item["call_id"])}}
