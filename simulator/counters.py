"""What happened, for proofs: counted beside the rules of the simulator, so that a broken rule shows here."""

import dataclasses
from collections import Counter
from itertools import takewhile
from typing import Any

from simulator.responses import Response


@dataclasses.dataclass(slots=True)
class RunCount:
    """What one client run (metadata.run_id) did."""

    provider_runs: int = 0
    requests: int = 0
    conversation: str | None = None
    first_created_at: float | None = None
    last_end: float = 0.0
    steps: Counter[str] = dataclasses.field(default_factory=Counter)
    """How many creates were carried out, by `attempt/step`."""

    @property
    def is_odd(self) -> bool:
        """Say whether a step was carried out twice."""
        return any(times > 1 for times in self.steps.values())

    def report(self, now: float) -> dict[str, Any]:
        """Return the counts as JSON; `ended_at` is null while a response of the run is active."""
        ended = self.last_end if self.provider_runs and self.last_end <= now else None
        return {
            "provider_runs": self.provider_runs,
            "requests": self.requests,
            "conversation": self.conversation,
            "first_created_at": self.first_created_at,
            "ended_at": ended,
        }


class Counters:
    """Counts of requests, responses, rejections and overlaps. Times are seconds since the epoch."""

    def __init__(self) -> None:
        self.requests = 0
        self.creates = 0
        self.limit_granted = 0
        self.limit_refused = 0
        self.provider_runs = 0
        self.overlaps = 0
        self.streams = 0
        self.streams_open = 0
        self.rejected: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.overlapping: Counter[str] = Counter()
        self.duplicate_outputs: Counter[str] = Counter()
        self.outputs_after_failure = 0
        self.runs: dict[str, RunCount] = {}
        self._answered: dict[str, Response] = {}
        self._active: dict[str, dict[str, float]] = {}
        self._order: dict[str, dict[str, None]] = {}

    def seen(self, run_id: str | None) -> None:
        """A request came in that belongs to this run."""
        if run_id is not None:
            self.runs.setdefault(run_id, RunCount()).requests += 1

    def began(self, response: str, metadata: dict[str, str], conversation: str | None, at: float, end: float) -> None:
        """A response was created; it is active from `at` to `end` (infinite while unknown)."""
        self.provider_runs += 1
        if conversation is not None:
            self._overlap(conversation, response, at, end)
        run_id = metadata.get("run_id")
        if run_id is None:
            return
        run = self.runs.setdefault(run_id, RunCount())
        run.provider_runs += 1
        run.last_end = max(run.last_end, end)
        run.first_created_at = at if run.first_created_at is None else run.first_created_at
        if conversation is not None:
            run.conversation = conversation
            self._order.setdefault(conversation, {})[run_id] = None
        if "step" in metadata:
            run.steps[f"{metadata.get('attempt', '')}/{metadata['step']}"] += 1

    def answered(self, response: Response, now: float) -> None:
        """Count the calls of a new response's input that were answered before.

        What stands before the model's last words is history, which a client without a conversation sends each time.

        Where the response that took the first answer failed or was cancelled, giving it again is no mistake.
        """
        for item in takewhile(_is_asked, reversed(response.inputs)):
            if item["type"] != "function_call_output":
                continue
            earlier = self._answered.get(item["call_id"])
            if earlier is not None and earlier.status(now) in ("failed", "cancelled"):
                self.outputs_after_failure += 1
            elif earlier is not None:
                self.duplicate_outputs[item["call_id"]] += 1
            self._answered[item["call_id"]] = response

    def _overlap(self, conversation: str, response: str, at: float, end: float) -> None:
        active = {other: until for other, until in self._active.get(conversation, {}).items() if until > at}
        if active:
            self.overlaps += 1
            self.overlapping[conversation] += 1
        self._active[conversation] = {**active, response: end}

    def cut(self, response: str, run_id: str | None, conversation: str | None, at: float) -> None:
        """A response was cancelled or deleted before its end."""
        active = self._active.get(conversation or "", {})
        if response in active:
            active[response] = at
        if run_id in self.runs:
            self.runs[run_id].last_end = at

    def attempt(self, run_id: str | None) -> int:
        """Return which create of its run the next one is, from 1; a run without an id is always at its first."""
        run = self.runs.get(run_id or "")
        return 1 + (run.provider_runs if run else 0)

    def run(self, run_id: str, now: float) -> dict[str, Any] | None:
        """Return the counts of one run."""
        return self.runs[run_id].report(now) if run_id in self.runs else None

    def report(self, now: float, *, by_run: bool) -> dict[str, Any]:
        """Return the totals, the order of the runs in each conversation and, if asked for, every run."""
        order = {conversation: list(runs) for conversation, runs in self._order.items()}
        body = {**self.totals(now), "order": order}
        if by_run:
            body["by_run"] = {run_id: run.report(now) for run_id, run in self.runs.items()}
        return body

    def anomalies(self, now: float) -> dict[str, Any]:
        """Return the totals, and of the runs only those with a step that was carried out twice."""
        odd = {run_id: {**run.report(now), "steps": run.steps} for run_id, run in self.runs.items() if run.is_odd}
        named = {"overlapping": self.overlapping, "duplicated_calls": self.duplicate_outputs}
        return {**self.totals(now), **named, "runs": len(self.runs), "by_run": odd}

    def totals(self, now: float) -> dict[str, Any]:
        """Return what is counted over all runs."""
        active = sum(until > now for ends in self._active.values() for until in ends.values())
        return {
            "creates": self.creates,
            "limit_granted": self.limit_granted,
            "limit_refused": self.limit_refused,
            "provider_runs": self.provider_runs,
            "overlaps": self.overlaps,
            "requests": self.requests,
            "streams": self.streams,
            "streams_open": self.streams_open,
            "rejected": dict(self.rejected),
            "dropped": dict(self.dropped),
            "duplicate_steps": sum(times > 1 for run in self.runs.values() for times in run.steps.values()),
            "duplicate_outputs": self.duplicate_outputs.total(),
            "outputs_after_failure": self.outputs_after_failure,
            "active_in_conversations": active,
        }


def _is_asked(item: dict[str, Any]) -> bool:
    return item["type"] == "function_call_output" or (item["type"] == "message" and item.get("role") != "assistant")
