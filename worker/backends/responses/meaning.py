"""What a response means for a step of ours."""

from worker.backends.base import Done, Failed, Look, NeedsTools, Pending
from worker.backends.responses.bodies import ResponseBody
from worker.backends.transport.faults import TRANSIENT_CODES, unreadable
from worker.prices import Prices
from worker.response import Asked, Usage

_GOING_ON = frozenset({"queued", "in_progress"})


def counted(response: ResponseBody, prices: Prices) -> Usage | None:
    """Return what the server counted, None where it did not."""
    if response.usage is None:
        return None
    used = response.usage.input_tokens, response.usage.output_tokens
    return Usage(*used, prices.cost(response.model or "", *used))


def meaning(response: ResponseBody, usage: Usage) -> Look:
    """Return what a response says of its step."""
    status = response.status
    if status in _GOING_ON:
        return Pending(queued=status == "queued")
    last_item = response.output[-1].id if response.output else None
    if status in {"completed", "incomplete"}:
        if response.calls and status == "completed":
            return NeedsTools(_asked(response), usage, last_item)
        # Calls of an answer that was cut are nobody's: the next create looks for such calls, and answers them.
        known_end = None if response.calls else last_item
        return Done(response.text, usage, known_end, _stopped_by(response), response.completed_at)
    if response.error is None:
        told = f"the provider reports the response as {status[:80]}"
        return Failed(f"{status[:80]}_at_provider", told, usage, transient=False)
    code = response.error.code[:100]
    return Failed(code, response.error.message[:2000], usage, transient=code in TRANSIENT_CODES)


def _asked(response: ResponseBody) -> tuple[Asked, ...]:
    calls = tuple(Asked(call.call_id, call.name[:200], call.arguments) for call in response.calls)
    if len({call.call_id for call in calls}) < len(calls):
        raise unreadable("the provider gave two calls of one response the same call_id", creating=False)
    return calls


def _stopped_by(response: ResponseBody) -> str | None:
    if response.status != "incomplete":
        return None
    details = response.incomplete_details
    return details.reason[:100] if details else "unknown_reason"
