"""What a run of Assistants v2 and its messages mean for ours."""

from collections.abc import Mapping, Sequence
from math import isfinite

from worker.backends.assistants.bodies import MessageBody, RefusalPart, RunBody, TextPart, Typed
from worker.backends.base import Failed
from worker.backends.transport.faults import TRANSIENT_CODES, unreadable
from worker.response import Asked, Item, Usage

_WORDS = ("text", "refusal")
_OUR_WORDS = {"max_completion_tokens": "max_output_tokens"}


def look_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds after which the server asks to be looked at again (openai 3.54, lib/_assistants_runs.py)."""
    try:
        seconds = float(headers.get("openai-poll-after-ms") or "") / 1000
    except ValueError:
        return None
    return seconds if isfinite(seconds) and seconds >= 0 else None


def asked(run: RunBody) -> tuple[Asked, ...]:
    """Return the calls that a run waits for; raises ProviderError where they cannot be told apart."""
    calls = tuple(Asked(call.id, call.function.name[:200], call.function.arguments) for call in run.calls)
    if not calls:
        raise unreadable("the provider's run waits for calls that cannot be read", creating=False)
    if len({call.call_id for call in calls}) < len(calls):
        raise unreadable("the provider gave two calls of one run the same id", creating=False)
    return calls


def failure(run: RunBody, usage: Usage) -> Failed:
    """Return why a run has ended without an answer."""
    status = run.status[:80]
    if status == "expired":
        return Failed(status, "the provider's run expired before it had ended", usage, transient=True)
    if status != "failed" or run.last_error is None:
        return Failed(f"{status}_at_provider", f"the provider reports the run as {status}", usage, transient=False)
    code = run.last_error.code[:100]
    return Failed(code, run.last_error.message[:2000], usage, transient=code in TRANSIENT_CODES)


def stopped_by(run: RunBody) -> str | None:
    """Return why an answer was cut short, if it was."""
    if run.status != "incomplete":
        return None
    reason = run.incomplete_details.reason if run.incomplete_details else "unknown_reason"
    return _OUR_WORDS.get(reason, reason[:100])


def total(one: Usage, other: Usage) -> Usage:
    """Return what two runs used together; unknown where one of them does not say."""
    if None in (one.input_tokens, one.output_tokens, other.input_tokens, other.output_tokens):
        return Usage()
    cost = None if one.cost_usd is None or other.cost_usd is None else one.cost_usd + other.cost_usd
    inputs, outputs = (one.input_tokens, other.input_tokens), (one.output_tokens, other.output_tokens)
    return Usage(sum(filter(None, inputs)), sum(filter(None, outputs)), cost)


def text(said: Sequence[MessageBody]) -> str:
    """Return all the text of some messages; where the model only refused, its words for that."""
    parts = [part for message in said for part in message.content]
    texts = [part.text.value for part in parts if isinstance(part, TextPart)]
    return "\n\n".join(texts or [part.refusal for part in parts if isinstance(part, RefusalPart)])


def parts(said: Sequence[MessageBody]) -> tuple[Item, ...]:
    """Return some messages as parts where they hold more than text: images, and what they cite or made in files."""
    there = [_part(part) for message in said for part in message.content]
    return tuple(there) if any(part["type"] not in _WORDS or "annotations" in part for part in there) else ()


def _part(part: TextPart | RefusalPart | Typed) -> Item:
    if isinstance(part, Typed):
        return {**part.model_dump(), "type": part.type or "unknown"}
    if isinstance(part, RefusalPart):
        return {"type": "refusal", "refusal": part.refusal}
    marks = {"annotations": part.text.annotations} if part.text.annotations else {}
    return {"type": "text", "text": part.text.value, **marks}
