"""What a response means for a step of ours."""

from collections.abc import Mapping
from typing import Any

from worker.assistants.prices import Prices
from worker.backends.base import Done, Failed, Look, NeedsTools, Pending
from worker.backends.responses.bodies import CodeCall, Item, ResponseBody, SearchCall
from worker.backends.transport.faults import TRANSIENT_CODES, unreadable
from worker.response import CODE, SEARCH, Asked, HostedCall, Usage

_GOING_ON = frozenset({"queued", "in_progress"})
_WENT_WRONG = frozenset({"failed", "incomplete"})


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
            return NeedsTools(_asked(response), usage, last_item, hosted=_hosted(response))
        # Calls of an answer that was cut are nobody's: the next create looks for such calls, and answers them.
        known_end = None if response.calls else last_item
        return Done(
            response.text,
            usage,
            known_end,
            _stopped_by(response),
            response.completed_at,
            hosted=_hosted(response),
            parts=_parts(response),
        )
    if response.error is None:
        told = f"the provider reports the response as {status[:80]}"
        return Failed(f"{status[:80]}_at_provider", told, usage, transient=False, hosted=_hosted(response))
    code, told = response.error.code[:100], response.error.message[:2000]
    return Failed(code, told, usage, transient=code in TRANSIENT_CODES, hosted=_hosted(response))


def _hosted(response: ResponseBody) -> tuple[HostedCall, ...]:
    """Return what the provider's own tools did in a response; one without an id could not be kept once."""
    return tuple(filter(None, map(_told, response.output)))


def _told(item: Item) -> HostedCall | None:
    if item.id is None or not isinstance(item, CodeCall | SearchCall):
        return None
    error = item.status if item.status in _WENT_WRONG else None
    if isinstance(item, CodeCall):
        return HostedCall.told(item.id, CODE, {"code": item.code}, item.outputs, error=error)
    return HostedCall.told(item.id, SEARCH, {"queries": item.queries}, item.results, error=error)


def _parts(response: ResponseBody) -> tuple[Mapping[str, Any], ...]:
    """Return the answer as parts of a message where it cites files or made some."""
    texts = [part for part in response.parts if part.type == "output_text"]
    if not any(part.annotations for part in texts):
        return ()
    marks = [{"annotations": part.annotations} if part.annotations else {} for part in texts]
    return tuple({"type": "text", "text": part.text or "", **more} for part, more in zip(texts, marks, strict=True))


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
