"""One response: its walk queued → in_progress → an end, computed from the clock when somebody looks."""

import dataclasses
import math

from simulator.hosted import cited, hosted_item
from simulator.model import Reply
from simulator.wire import JsonObject, function_call_item, message_item, response_object, tokens, usage

_QUEUED_SHARE = 0.2
_QUEUED_AT_MOST = 0.3


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """How a response ends: its final status, all that its model wrote, and what else it then shows."""

    status: str
    written: list[JsonObject] = dataclasses.field(default_factory=list)
    error: JsonObject | None = None
    incomplete_details: JsonObject | None = None
    usage: JsonObject | None = None

    @property
    def output(self) -> list[JsonObject]:
        """The items that the response shows: none once it has failed."""
        return [] if self.status == "failed" else self.written


@dataclasses.dataclass(slots=True)
class Response:
    """A response, from its creation on.

    Times are seconds since the epoch; `ends` is infinite for one that hangs, `starts` for one stuck in `queued`.
    """

    id: str
    request: JsonObject
    history: list[JsonObject]
    inputs: list[JsonObject]
    outcome: Outcome
    created: float
    starts: float
    ends: float
    cancelled: bool = False

    @property
    def run_id(self) -> str | None:
        """The client run that it belongs to, if its metadata names one."""
        return (self.request.get("metadata") or {}).get("run_id")

    def is_active(self, now: float) -> bool:
        """Say whether it still runs."""
        return now < self.ends

    def status(self, now: float) -> str:
        """Return the status at this time."""
        if not self.is_active(now):
            return "cancelled" if self.cancelled else self.outcome.status
        return "queued" if now < self.starts else "in_progress"

    def cancel(self, now: float) -> bool:
        """End it now, if it is still active; say whether that changed anything."""
        if not self.is_active(now):
            return False
        self.ends, self.cancelled = now, True
        return True

    def left(self, now: float, on_failure: str) -> list[JsonObject]:
        """Return what it leaves in its conversation once it has ended; `on_failure` is none, input or all."""
        if on_failure == "all" or self.status(now) in ("completed", "incomplete"):
            return self.inputs + self.outcome.written
        return self.inputs if on_failure == "input" else []

    def output(self, now: float) -> list[JsonObject]:
        """Return the items that it has put out by now."""
        return self.outcome.output if self.status(now) == self.outcome.status else []

    def body(self, now: float) -> JsonObject:
        """Return the response as the wire has it at this time."""
        return self.shown(self.status(now))

    def shown(self, status: str) -> JsonObject:
        """Return the response as the wire has it in this status."""
        shown = self.outcome if status == self.outcome.status else Outcome(status)
        state = {
            "id": self.id,
            "created_at": int(self.created),
            "completed_at": int(self.ends) if status == "completed" else None,
            "status": status,
            "output": shown.output,
            "error": shown.error,
            "incomplete_details": shown.incomplete_details,
            "usage": shown.usage,
        }
        return response_object(self.request, state)


def times(now: float, queued: float, seconds: float) -> tuple[float, float]:
    """Return when a response starts and ends that waits `queued` seconds for the `seconds` which it takes."""
    begins = now + queued
    return begins + min(_QUEUED_SHARE * seconds, _QUEUED_AT_MOST), begins + seconds


def outcome_of(reply: Reply, request: JsonObject, read: str) -> Outcome:
    """Turn what the model said into a response's end; `read` is all text that it was given."""
    limit = request.get("max_output_tokens") or math.inf
    written = "".join(name + arguments for name, arguments in reply.calls) + reply.text
    spent = tokens(written) if reply.tokens is None else reply.tokens
    hosted = [hosted_item(name, told, request.get("include") or ()) for name, told in reply.hosted]
    if reply.failure is None and (reply.incomplete or spent > limit):
        return _cut_off(reply, limit, tokens(read), hosted)
    output = hosted + [function_call_item(name, arguments) for name, arguments in reply.calls]
    if reply.text:
        output.append(message_item("assistant", reply.text, cites=cited(reply.hosted)))
    if reply.failure is not None:
        code, message = reply.failure
        return Outcome("failed", output, error={"code": code, "message": message})
    return Outcome("completed", output, usage=usage(tokens(read), spent))


def _cut_off(reply: Reply, limit: float, read_tokens: int, hosted: list[JsonObject]) -> Outcome:
    """Keep the text that fits, or half of it where no limit was set; a call that was cut off is not shown."""
    kept = min(limit, max(1, tokens(reply.text) // 2))
    text = reply.text[: int(kept) * 4]
    output = hosted + ([message_item("assistant", text, "incomplete")] if text else [])
    details = {"reason": "max_output_tokens"}
    return Outcome("incomplete", output, incomplete_details=details, usage=usage(read_tokens, int(kept)))
