"""What a runner calls before a create goes out, and when it knows more; costs nothing where there is no limit."""

import uuid
from collections.abc import Callable, Mapping
from http import HTTPStatus
from time import monotonic
from typing import Any, Self

from redis.asyncio import Redis

from worker import tokens
from worker.backends.base import Created, Ended, Failed, Step
from worker.broker.wire import DEFAULT_PRIORITY
from worker.errors import ProviderError
from worker.limits.asking import Ask, Limits
from worker.limits.gate import Gate
from worker.limits.link import Link
from worker.limits.shared import Shared
from worker.store.claiming import Claim

_PAUSE = 1.0  # seconds, where a refusal does not say how long to wait
_LONGEST_PAUSE = 60.0  # a single answer does not stop the fleet for longer
_NEWEST = 0.2  # weight of the newest step in the usual usage of an assistant

Whose = Callable[[Mapping[str, Any]], tuple[str, str]]


class Admission:
    """A create that may go out; what was reserved for it goes back if it does not."""

    __slots__ = ("_ask", "_assistant", "_gate", "_gates", "_open", "_reserved")

    def __init__(self, gates: "Gates", gate: Gate, ask: Ask, assistant: str, *, reserved: bool) -> None:
        self._gates = gates
        self._gate = gate
        self._ask = ask
        self._assistant = assistant
        self._reserved = reserved
        self._open = reserved

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._gate.answered()
        if self._open:
            self._open = False
            self._gate.settle(self._ask, requests=1, tokens=self._ask.tokens)

    def goes_out(self) -> None:
        """Note that the provider may see it from now on."""
        self._open = False

    def taken(self, created: Created) -> None:
        """Learn from the answer of a create that was taken on."""
        self._gate.read(created.headers)

    def failed(self, error: ProviderError) -> None:
        """Give back what a create that failed has not used: all, where it did not go out; a request always counts."""
        self._gate.read(error.headers)
        if error.status == HTTPStatus.TOO_MANY_REQUESTS and error.transient:
            self._gate.refused(min(_LONGEST_PAUSE, _PAUSE if error.retry_after is None else error.retry_after))
        if self._reserved and not error.unknown:
            self._gate.settle(self._ask, requests=int(error.status is None), tokens=self._ask.tokens)

    def ended(self, end: Ended) -> None:
        """Settle with what the step has used, as far as the provider says it."""
        if isinstance(end, Failed) and end.code == "rate_limit_exceeded":
            self._gate.refused(_PAUSE)
        used = end.usage.input_tokens, end.usage.output_tokens
        total = None if None in used else sum(filter(None, used))
        if total is not None:
            self._gates.learn(self._assistant, total)
        unused = 0 if total is None or not self._reserved else self._ask.tokens - max(total, self._ask.least)
        self._gate.settle(self._ask, tokens=unused)
        self._reserved = False

    def leave(self) -> None:
        """Keep the place no longer: whoever goes on with the run takes it, or it is free after a while."""
        self._gate.forget(self._ask.run_id)


class Gates:
    """One for a worker: a gate for each model, as one server and one key have it."""

    def __init__(self, redis: Redis, set_limits: Limits, *, whose: Whose, emit: Callable[..., None]) -> None:
        """Make no connection yet; `whose` gives an assistant's server and key.

        `emit` tells of waits and of limits that were learnt.
        """
        self._link = Link(redis)
        self._set = set_limits
        self._worker = str(uuid.uuid4())
        self._whose = whose
        self._emit = emit
        self._gates: dict[tuple[str, str, str], Gate] = {}
        self._usual: dict[str, float] = {}

    def at_once(self, step: Step, claim: Claim) -> Admission | None:
        """Let a step pass for which no limit is known; None where it has to be admitted."""
        gate = self._gate(step.config)
        return self._passed(gate, claim) if gate.is_open() else None

    async def admit(self, step: Step, claim: Claim) -> Admission:
        """Wait until the step may be created."""
        gate = self._gate(step.config)
        tokens, least = self._estimate(step, claim.assistant)
        bulk = claim.batch_id is not None and claim.priority <= DEFAULT_PRIORITY
        ask, began = Ask(claim.run_id, tokens, bulk, least), monotonic()
        reserved = await gate.enter(ask, claim.priority)
        self._emit("limit.waited", model=_model(step.config), waited=monotonic() - began)
        return Admission(self, gate, ask, claim.assistant, reserved=reserved)

    def resumed(self, claim: Claim) -> Admission:
        """Return what stands for a run's step in hand; one that goes on at the provider takes its place there."""
        gate = self._gate(claim.config)
        if claim.provider_id is not None or claim.intent_step is not None:
            gate.keep(claim.run_id)
        return self._passed(gate, claim)

    def _passed(self, gate: Gate, claim: Claim) -> Admission:
        return Admission(self, gate, Ask(claim.run_id, 0, bulk=True), claim.assistant, reserved=False)

    def counts_runs(self, config: Mapping[str, Any]) -> bool:
        """Tell whether the runs at the provider are limited: whoever holds one keeps its place among them."""
        return bool(self._gate(config).limits.runs)

    def learn(self, assistant: str, used: int) -> None:
        """Remember what a step of an assistant uses."""
        usual = self._usual.get(assistant)
        self._usual[assistant] = used if usual is None else usual + _NEWEST * (used - usual)

    async def close(self) -> None:
        """End what goes on."""
        await self._link.close()

    def _gate(self, config: Mapping[str, Any]) -> Gate:
        server, key = self._whose(config)
        model = _model(config)
        gate = self._gates.get((server, key, model))
        if gate is None:

            def known(limits: Limits) -> None:
                self._emit("limit.known", model=model, requests=limits.requests, tokens=limits.tokens)

            shared = Shared(self._link.redis, self._worker, server, key, model)
            gate = self._gates[server, key, model] = Gate(self._link, shared, self._set, known)
            if any(self._set):
                known(self._set)
        return gate

    def _estimate(self, step: Step, assistant: str) -> tuple[int, int]:
        """Return the tokens that a step may take, and those that it counts for at least.

        A request counts for the larger of its longest answer and a fourth of its characters (OpenAI's guide on rate
        limits). It takes what steps of its assistant usually do; the first of them is taken to be of both.
        """
        texts = [step.config.get("instructions") or "", *(answer.output for answer in step.answers)]
        texts += map(str, step.history)
        texts += [str(part.get("text", "") if isinstance(part, Mapping) else part) for part in step.input]
        asked, answer = sum(map(len, texts)) // 4, int(step.config.get("max_output_tokens") or 0)
        least = max(asked, answer)
        return max(least, round(self._usual.get(assistant, asked + (answer or tokens.ANSWER)))), least


def _model(config: Mapping[str, Any]) -> str:
    return str(config.get("model", ""))
