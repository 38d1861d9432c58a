"""One run of a thread: its walk through legs of the model, computed from the clock when somebody looks.

A leg is what the model does at a time, a response without a life of its own: the first one begins with the run, each
further one with the outputs of the calls that the leg before asked for.
"""

import dataclasses
import math

from simulator.chat import call
from simulator.hosted import citations, is_hosted
from simulator.reading import item_text
from simulator.responses import Response
from simulator.threads_wire import message_object, new_id, usage
from simulator.wire import JsonObject, labelled

_CODES = ("server_error", "rate_limit_exceeded", "invalid_prompt")  # all that the document allows in last_error
_REASONS = {"max_output_tokens": "max_completion_tokens"}


@dataclasses.dataclass(frozen=True, slots=True)
class Leg:
    """A leg, with the ids of its step and of the message that it writes if it writes one."""

    response: Response
    step_id: str = dataclasses.field(default_factory=lambda: new_id("step"))
    message_id: str = dataclasses.field(default_factory=lambda: new_id("msg"))

    @property
    def calls(self) -> list[JsonObject]:
        """The calls that it asks for, as items."""
        return [item for item in self.response.outcome.output if item["type"] == "function_call"]

    @property
    def hosted(self) -> list[JsonObject]:
        """The calls of the provider's own tools that it made, as items, also where it then failed."""
        return [item for item in self.response.outcome.written if is_hosted(item)]

    @property
    def text(self) -> str | None:
        """The text that it writes; None where it writes none."""
        written = [item_text(item) for item in self.response.outcome.output if item["type"] == "message"]
        return "".join(written) if written else None


@dataclasses.dataclass(slots=True)
class Run:
    """A run, from its creation on; times are seconds since the epoch, infinite for what does not come by itself."""

    id: str
    thread_id: str
    assistant_id: str
    settings: JsonObject
    metadata: dict[str, str]
    created: float
    expires: float
    legs: list[Leg]
    cancelling: float = math.inf
    """When a cancel was asked for, and when it takes effect."""
    cancelled: float = math.inf

    @property
    def leg(self) -> Leg:
        """The newest leg."""
        return self.legs[-1]

    @property
    def end(self) -> tuple[float, str]:
        """When and how it ends if nobody does anything more."""
        response = self.leg.response
        own = math.inf if self.leg.calls or response.cancelled else response.ends
        return min((own, response.outcome.status), (self.expires, "expired"), (self.cancelled, "cancelled"), key=_first)

    def is_active(self, now: float) -> bool:
        """Say whether it still holds its thread."""
        return now < self.end[0]

    def status(self, now: float) -> str:
        """Return the status at this time."""
        if not self.is_active(now):
            return self.end[1]
        if self.cancelling <= now:
            return "cancelling"
        if self.leg.calls and self.leg.response.ends <= now:
            return "requires_action"
        return "queued" if now < self.leg.response.starts else "in_progress"

    def body(self, now: float) -> JsonObject:
        """Return the run as the wire has it at this time."""
        return self.shown(self.status(now))

    def shown(self, status: str) -> JsonObject:
        """Return the run as the wire has it in this status."""
        ended = int(self.end[0]) if status == self.end[1] else None
        began = self.legs[0].response.starts
        started = len(self.legs) > 1 or (status != "queued" and began < self.end[0])
        return {
            "id": self.id,
            "object": "thread.run",
            "created_at": int(self.created),
            "assistant_id": self.assistant_id,
            "thread_id": self.thread_id,
            "status": status,
            "started_at": int(began) if started else None,
            # Recorded: null once a run has completed. Of the other ends nothing is recorded.
            "expires_at": int(self.expires) if ended is None or status == "expired" else None,
            **{f"{kind}_at": ended if status == kind else None for kind in ("cancelled", "failed", "completed")},
            "required_action": self._required() if status == "requires_action" else None,
            "last_error": self.last_error if status == "failed" else None,
            "incomplete_details": self._incomplete() if status == "incomplete" else None,
            "usage": None if ended is None else usage(self._counted()),
            "metadata": labelled(self.metadata),
            **self.settings,
        }

    def _required(self) -> JsonObject:
        calls = {"tool_calls": [call(item) for item in self.leg.calls]}
        return {"type": "submit_tool_outputs", "submit_tool_outputs": calls}

    @property
    def last_error(self) -> JsonObject | None:
        """What a failure says; the document knows three codes."""
        error = self.leg.response.outcome.error
        return error and {**error, "code": error["code"] if error["code"] in _CODES else "server_error"}

    def _incomplete(self) -> JsonObject:
        reason = (self.leg.response.outcome.incomplete_details or {})["reason"]
        return {"reason": _REASONS.get(reason, reason)}

    def _counted(self) -> list[JsonObject]:
        """Return the usages of all legs that have come to their end."""
        done = [leg.response for leg in self.legs if leg.response.ends <= self.end[0] and not leg.response.cancelled]
        return [response.outcome.usage for response in done if response.outcome.usage]

    def message(self) -> JsonObject | None:
        """Return the message that the run leaves in its thread once it has ended, if it leaves one."""
        status, at = self.end[1], int(self.end[0])
        if status not in ("completed", "incomplete") or self.leg.text is None:
            return None
        return self.written("completed" if status == "completed" else "incomplete", at)

    def written(self, status: str, at: int | None) -> JsonObject:
        """Return the newest leg's message in this status, which it has reached at this time."""
        given = {"role": "assistant", "content": (self.leg.text or "") if at is not None else []}
        details = {"reason": "max_tokens"} if status == "incomplete" else None
        state = {
            "assistant_id": self.assistant_id,
            "run_id": self.id,
            "status": status,
            "incomplete_details": details,
            "incomplete_at": at if status == "incomplete" else None,
            "completed_at": at if status == "completed" else None,
        }
        message = message_object(self.leg.message_id, self.thread_id, self.leg.response.starts, given, state)
        for part in message["content"]:
            part["text"]["annotations"] = citations(self.leg.hosted)
        return message


def _first(end: tuple[float, str]) -> float:
    return end[0]
