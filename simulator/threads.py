"""Assistants, threads, messages and runs, and the rules between them: one run at a time, no message meanwhile."""

import dataclasses
import math
from collections import Counter
from typing import Any

from simulator import threads_validation as rules
from simulator.errors import ApiError
from simulator.model import reply_to
from simulator.prompt import Prompt
from simulator.provider import Asking, Provider
from simulator.responses import Outcome, Response
from simulator.thread_runs import Leg, Run
from simulator.threads_wire import assistant_object, message_object, new_id, run_settings, text_of, thread_object
from simulator.translation import flat_choice, flat_tools, text_format
from simulator.wire import JsonObject

# What a message of a client says of its state: it is whole from the first.
_WHOLE = {"status": "completed", "incomplete_details": None, "incomplete_at": None}


@dataclasses.dataclass(slots=True)
class Thread:
    """A thread: its messages and runs by id, in the order of adding."""

    id: str
    created: float
    metadata: dict[str, str]
    tool_resources: JsonObject
    messages: dict[str, JsonObject] = dataclasses.field(default_factory=dict)
    runs: dict[str, Run] = dataclasses.field(default_factory=dict)
    active: Run | None = None

    def settle(self, now: float) -> None:
        """Take in the message of a run that has ended."""
        if self.active is None or self.active.is_active(now):
            return
        message, self.active = self.active.message(), None
        if message is not None:
            self.messages[message["id"]] = message

    def add(self, given: list[JsonObject], now: float) -> list[JsonObject]:
        """Append messages and return them as they are kept."""
        whole = {**_WHOLE, "completed_at": int(now)}
        made = [message_object(new_id("msg"), self.id, now, one, whole) for one in given]
        self.messages.update((one["id"], one) for one in made)
        return made

    def body(self) -> JsonObject:
        """Return the thread as the wire has it."""
        return thread_object(self.id, self.created, self.metadata, self.tool_resources)


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """A run, or outputs for one, that may be accepted; what its model says to it, and messages to be added before."""

    run: Run
    asking: Asking
    messages: list[JsonObject] = dataclasses.field(default_factory=list)


class Threads:
    """All of Assistants v2 in one simulator; clock, faults, limits and counters are the provider's."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.assistants: dict[str, JsonObject] = {}
        self.threads: dict[str, Thread] = {}
        self.runs: dict[str, Run] = {}
        self._legs: Counter[str] = Counter()

    def create_assistant(self, body: JsonObject) -> JsonObject:
        """Make an assistant."""
        rules.check(body, rules.ASSISTANT, ("model",))
        made = assistant_object(new_id("asst"), self.provider.clock(), body)
        self.assistants[made["id"]] = made
        return made

    def assistant(self, ident: str) -> JsonObject:
        """Return an assistant, or raise ApiError."""
        if ident not in self.assistants:
            raise rules.not_found("assistant", ident)
        return self.assistants[ident]

    def update_assistant(self, ident: str, body: JsonObject) -> JsonObject:
        """Change what is given of an assistant; runs under way keep what they began with."""
        found = self.assistant(ident)
        rules.check(body, rules.ASSISTANT)
        self.assistants[ident] = assistant_object(ident, found["created_at"], {**found, **body})
        return self.assistants[ident]

    def create_thread(self, body: JsonObject) -> Thread:
        """Begin a thread, with messages if some are given."""
        rules.check(body, rules.THREAD)
        messages = _checked(body, "messages")
        now = self.provider.clock()
        thread = Thread(new_id("thread"), now, body.get("metadata") or {}, body.get("tool_resources") or {})
        thread.add(messages, now)
        self.threads[thread.id] = thread
        return thread

    def thread(self, ident: str) -> Thread:
        """Return a thread with the message of a run that has ended taken in, or raise ApiError."""
        if ident not in self.threads:
            raise rules.not_found("thread", ident)
        thread = self.threads[ident]
        thread.settle(self.provider.clock())
        return thread

    def delete_thread(self, ident: str) -> None:
        """Forget a thread, its messages and its runs; one under way ends."""
        thread, now = self.thread(ident), self.provider.clock()
        if thread.active is not None:
            self._told(thread.active, now)
        for run_id in thread.runs:
            del self.runs[run_id]
        del self.threads[ident]

    def add_message(self, thread_id: str, body: JsonObject) -> JsonObject:
        """Append a message to a thread on which no run is active."""
        thread = self.thread(thread_id)
        rules.check_message(body)
        if thread.active is not None:
            raise rules.no_messages_now(thread_id, thread.active.id)
        return thread.add([body], self.provider.clock())[0]

    def message(self, thread_id: str, ident: str) -> JsonObject:
        """Return a message, or raise ApiError."""
        messages = self.thread(thread_id).messages
        if ident not in messages:
            raise rules.not_found("message", ident)
        return messages[ident]

    def run(self, thread_id: str, ident: str) -> Run:
        """Return a run of a thread, or raise ApiError."""
        runs = self.thread(thread_id).runs
        if ident not in runs:
            raise rules.not_found("run", ident)
        return runs[ident]

    def run_of(self, ident: str) -> str | None:
        """Return the client run that a run belongs to, if it is known."""
        return self.runs[ident].metadata.get("run_id") if ident in self.runs else None

    def wanted_run(self, thread_id: str, body: JsonObject) -> Wanted:
        """Return what a create asks for, with nothing done yet; ApiError where it is refused."""
        rules.check(body, rules.RUN, ("assistant_id",))
        messages = _checked(body, "additional_messages")
        thread, now = self.thread(thread_id), self.provider.clock()
        assistant = self.assistant(body["assistant_id"])
        if thread.active is not None:
            raise rules.already_active(thread_id, thread.active.id)
        settings, metadata = run_settings(assistant, body), body.get("metadata") or {}
        expires = now + self.provider.faults.settings.expire_seconds
        run = Run(new_id("run"), thread_id, assistant["id"], settings, metadata, now, expires, [])
        shown = [*thread.messages.values(), *(message_object("", thread_id, now, one, {}) for one in messages)]
        kept = shown[-(settings["truncation_strategy"]["last_messages"] or len(shown)) :]
        items = [{"type": "message", "role": one["role"], "content": text_of(one)} for one in kept]
        return Wanted(run, self._asking(run, items, []), messages)

    def wanted_outputs(self, thread_id: str, run_id: str, body: JsonObject) -> Wanted:
        """Return what outputs ask for: the next leg of their run; ApiError where it does not wait for just these."""
        rules.check(body, rules.OUTPUTS, ("tool_outputs",))
        rules.check_outputs(body["tool_outputs"])
        run = self.run(thread_id, run_id)
        status = run.status(self.provider.clock())
        if status != "requires_action":
            raise rules.no_outputs_now(status)
        given = {one["tool_call_id"]: one.get("output") or "" for one in body["tool_outputs"]}
        needed = [item["call_id"] for item in run.leg.calls]
        if set(given) != set(needed):
            raise rules.wrong_outputs(needed, list(given))
        outputs = [{"type": "function_call_output", "call_id": one, "output": given[one]} for one in needed]
        before = run.leg.response
        return Wanted(run, self._asking(run, [*before.history, *before.inputs, *run.leg.calls], outputs))

    def _asking(self, run: Run, history: list[JsonObject], inputs: list[JsonObject]) -> Asking:
        settings = run.settings
        request = {
            "model": settings["model"],
            "instructions": settings["instructions"],
            "tools": flat_tools(settings["tools"]),
            "tool_choice": flat_choice(settings["tool_choice"]),
            "parallel_tool_calls": settings["parallel_tool_calls"],
            "text": {"format": text_format(settings["response_format"])},
            "max_output_tokens": _left(run),
            "metadata": run.metadata,
            "background": True,
            "include": ["code_interpreter_call.outputs", "file_search_call.results"],
        }
        run_id = run.metadata.get("run_id")
        attempt = 1 + (self._legs[run_id] if run_id else 0)
        return Asking(request, None, history, inputs, reply_to(Prompt.of(request, history + inputs, attempt)))

    def carry_out(self, wanted: Wanted, key: str) -> Run:
        """Begin a run or its next leg; the limits of this key, which a run meets only then, let it fail."""
        run, counters, thread = wanted.run, self.provider.counters, self.thread(wanted.run.thread_id)
        thread.add(wanted.messages, self.provider.clock())
        response = self.provider.begin(self._within_limits(wanted.asking, key))
        _cap(run, response)
        run.legs.append(Leg(response))
        if run.id in self.runs:
            self._told(run, run.end[0])
        else:
            self.runs[run.id] = thread.runs[run.id] = thread.active = run
            counters.began(run.id, run.metadata, thread.id, run.created, run.end[0])
        counters.answered(response, response.created)
        self._legs[run.metadata.get("run_id", "")] += 1
        return run

    def _within_limits(self, asking: Asking, key: str) -> Asking:
        request, counters = asking.request, self.provider.counters
        try:
            self.provider.limits.take(key, request["model"], {**request, "input": asking.history + asking.inputs})
        except ApiError as error:
            counters.limit_refused += 1
            failure = ("rate_limit_exceeded", str(error))
            return dataclasses.replace(asking, reply=dataclasses.replace(asking.reply, failure=failure, latency=0.0))
        counters.limit_granted += 1
        return asking

    def _told(self, run: Run, end: float) -> None:
        self.provider.counters.cut(run.id, run.metadata.get("run_id"), run.thread_id, end)

    def cancel_run(self, thread_id: str, ident: str) -> Run:
        """Let a run be cancelling for a while; by a switch it then comes to another end all the same."""
        run, now, settings = self.run(thread_id, ident), self.provider.clock(), self.provider.faults.settings
        if run.status(now) not in ("queued", "in_progress", "requires_action"):
            raise rules.no_cancel_now(run.status(now))
        response, soon = run.leg.response, now + settings.cancelling_seconds
        run.cancelling = now
        if not settings.cancel_completes:
            response.cancel(now)
            run.cancelled = soon
        elif response.ends == math.inf:
            response.starts, response.ends = now, now + self.provider.faults.latency()
        if run.leg.calls:
            run.cancelled = max(soon, response.ends)
        self._told(run, run.end[0])
        return run


def _checked(body: JsonObject, name: str) -> list[Any]:
    messages: list[Any] = body.get(name) or []
    for at, message in enumerate(messages):
        rules.check_message(message, f"{name}[{at}].")
    return messages


def _left(run: Run) -> int | None:
    """Return how many output tokens a run has left for its next leg."""
    most = run.settings["max_completion_tokens"]
    spent = sum((leg.response.outcome.usage or {}).get("output_tokens", 0) for leg in run.legs)
    return None if most is None else max(1, most - spent)


def _cap(run: Run, response: Response) -> None:
    """Let a leg end incomplete that would take more prompt tokens than its run may."""
    most, used = run.settings["max_prompt_tokens"], response.outcome.usage
    before = sum((leg.response.outcome.usage or {}).get("input_tokens", 0) for leg in run.legs)
    if most is not None and used is not None and before + used["input_tokens"] > most:
        details = {"reason": "max_prompt_tokens"}
        response.outcome = Outcome("incomplete", incomplete_details=details, usage={**used, "output_tokens": 0})
