"""One run's life, readable top to bottom: start or re-attach → wait → tools → submit → … → settle."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

import structlog

from worker.backends.base import Answer, Done, Ended, Failed, Look, NeedsTools, Pending, Step
from worker.calls import Calls
from worker.errors import ProviderError
from worker.lifecycle import Event, Status
from worker.parts import Parts
from worker.response import Usage
from worker.retries import backoff
from worker.store import progress, reading, settling
from worker.store.claiming import Claim
from worker.store.settling import End

_log = structlog.get_logger(__name__)
_MOST_CRASHES = 3


@dataclass(slots=True)
class Held:
    """A run this worker holds, and what the engine has to tell its runner."""

    claim: Claim
    cancel: bool = False
    cancel_seen: bool = False
    stopping: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    freed: str | None = None
    """What the runner leaves to the engine: the queue of the run that got the turn."""
    again_in: float | None = None
    """And in how many seconds this run is due again."""


class HandOver(Exception):
    """The worker stops: let the run go as it is."""


class CancelAsked(Exception):
    """Somebody asked to cancel the run."""


class TimeUp(Exception):
    """The run's time limit has passed."""


class Runner:
    """Drives one held run until it has ended, is queued for a further attempt, or is handed over."""

    def __init__(self, held: Held, parts: Parts, alive: Callable[[], bool]) -> None:
        self._held = held
        self._alive = alive
        self._claim = held.claim
        self._parts = parts
        self._step = held.claim.step
        self._provider_id = held.claim.provider_id
        self._conversation = held.claim.conversation
        self._last_item = held.claim.last_item
        self._created = held.claim.created
        self._unclear = held.claim.intent_step == held.claim.step
        self._ends_at = monotonic() + held.claim.seconds_left

    async def drive(self) -> None:
        """Carry the run on from where its rows say it stands; raises LostClaim when it is no longer ours."""
        self._emit("run.claimed")
        try:
            await self._to_its_end()
        except HandOver:
            await self._write(settling.let_go)
            self._emit("run.handed_over")

    async def _to_its_end(self) -> None:
        try:
            await self._course()
        except CancelAsked:
            await self._cancel()
        except TimeUp:
            await self._expire()
        except ProviderError as error:
            self._unclear = self._unclear or self._provider_id is not None
            await self.fail(Failed(error.code, error.message, Usage(), error.transient))

    async def _course(self) -> None:
        while True:
            self._heed()
            match await self._wait(self._provider_id or await self._create()):
                case NeedsTools() as asked:
                    await self._take_calls(asked)
                case Done() as done:
                    return await self._finish(done)
                case Failed() as failed:
                    return await self.fail(failed)

    # ── start and submit ──────────────────────────────────────────────────────────────────────────────────────────

    async def _create(self) -> str:
        """Answer the open calls and create the next step, once: the intent is committed before the request goes out."""
        if self._unclear:
            await self._write(progress.mark_unknown)
            raise ProviderError("unknown_outcome", "a worker died while it created this step; the provider may run it")
        if self._created >= self._claim.config.get("max_steps", self._parts.settings.max_steps):
            raise ProviderError("max_steps", f"the model still asked for tools after {self._created} steps")
        calls = Calls(self._claim, self._parts, self._ends_at)
        tools = calls.tools()
        answers = await self._patiently(lambda: self._answers(calls)) if self._conversation else []
        self._heed()  # tools take time: what was asked meanwhile saves a provider run
        conversation = self._conversation or await self._open_conversation()
        step = Step(
            run_id=self._claim.run_id,
            thread_id=self._claim.thread_id,
            attempt=self._claim.attempt,
            number=self._step,
            conversation=conversation,
            config=self._claim.config,
            tools=tools,
            # A step goes on from the calls of the one before; where they are answered already, the run asks anew.
            input=() if calls.continues else self._claim.input,
            answers=answers,
        )
        self._provider_id = await self._patiently(lambda: self._create_once(step))
        self._created += 1
        await self._write(progress.created, self._step, self._provider_id)
        self._emit("run.created", step=self._step, provider_id=self._provider_id)
        return self._provider_id

    async def _create_once(self, step: Step) -> str:
        """Commit the intent inside a slot, so that a run that only queues for one is never of unknown outcome."""
        async with self._parts.backend.slot():
            self._heed()
            self._check_lease()
            await self._write(progress.intend, self._step, self._last_item)
            try:
                return await self._parts.backend.create(step)
            except ProviderError as error:
                if not error.unknown:
                    await self._write(progress.withdraw)
                    raise
                self._unclear = True
                await self._write(progress.mark_unknown)
                raise ProviderError("unknown_outcome", f"{error.message}; the provider may run it") from error

    async def _answers(self, calls: Calls) -> list[Answer]:
        self._check_lease()
        return await calls.answers()

    def _check_lease(self) -> None:
        """Hold back from the outside while our claims may be another's, until the lease is renewed or lost."""
        if not self._alive():
            raise ProviderError("lease_expired", "this worker's lease is not renewed", transient=True)

    async def _open_conversation(self) -> str:
        thread_id = self._claim.thread_id
        history = await self._parts.store.read(reading.messages, thread_id)
        self._conversation = await self._patiently(lambda: self._parts.backend.open_conversation(thread_id, history))
        await self._write(progress.set_conversation, self._conversation)
        return self._conversation

    async def _patiently(self, request: Callable[[], Any]) -> Any:
        """Repeat a request that fails in passing, with growing pauses, for as long as the run has time."""
        failures = 0
        while True:
            try:
                return await request()
            except ProviderError as error:
                if not error.transient:
                    raise
                failures += 1
                settings = self._parts.settings
                wait = backoff(failures, settings.retry_min, settings.retry_max, error.retry_after)
                self._emit("provider.refused", code=error.code, failures=failures, seconds=round(wait, 2))
                await self._pause(wait)

    # ── wait ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _wait(self, provider_id: str) -> Ended:
        """Look at the response in growing, jittered intervals until it is no longer pending."""
        settings = self._parts.settings
        looks = 0
        while True:
            looks += 1
            await self._pause(backoff(looks, settings.poll_min, settings.poll_max))
            look: Look = await self._patiently(lambda: self._parts.backend.look(provider_id))
            if not isinstance(look, Pending):
                return look

    async def _pause(self, seconds: float) -> None:
        """Wait, unless the engine has something to say; raises what it says."""
        self._heed()
        try:
            async with asyncio.timeout(min(seconds, max(0.0, self._ends_at - monotonic()))):
                await self._held.changed.wait()
        except TimeoutError:
            pass
        self._heed()

    def _heed(self) -> None:
        if self._held.stopping:
            raise HandOver
        if self._held.cancel:
            raise CancelAsked
        if monotonic() >= self._ends_at:
            raise TimeUp

    async def _take_calls(self, asked: NeedsTools) -> None:
        calls, usage, last = asked.calls, asked.usage, asked.last_item
        await self._write(progress.need_tools, step=self._step, calls=calls, usage=usage, last_item=last)
        self._step, self._provider_id, self._last_item = self._step + 1, None, last
        self._emit("run.requires_action", tools=[call.name for call in calls])

    # ── ends ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _finish(self, done: Done) -> None:
        if done.stopped_by is None:
            return await self._settle(Event.COMPLETE, done)
        return await self._settle(Event.STOP_SHORT, done, done.stopped_by, f"the answer was cut: {done.stopped_by}")

    async def fail(self, failed: Failed) -> None:
        """Queue a further attempt where the failure may pass and one is left; else the run has failed."""
        claim, settings = self._claim, self._parts.settings
        if not failed.transient or claim.attempt >= claim.max_attempts:
            return await self._settle(Event.FAIL, failed, failed.code, failed.message)
        delay = backoff(claim.attempt, settings.retry_min, settings.retry_max)
        end = End(Event.FAIL, error_code=failed.code, error_message=failed.message, usage=failed.usage)
        await self._write(settling.retry, delay, end)
        self._held.again_in = delay
        return self._emit("run.retried", code=failed.code, seconds=round(delay, 2))

    async def give_up(self, message: str) -> None:
        """Let the run go for a while after a bug of ours; one that crashes time and again has failed."""
        delay = backoff(self._claim.attempt, self._parts.settings.retry_min, self._parts.settings.retry_max)
        if await self._write(settling.crashed, delay, _MOST_CRASHES):
            self._held.again_in = delay
            return self._emit("run.crashed", message=message, seconds=round(delay, 2))
        self._unclear = self._unclear or self._provider_id is not None
        return await self._settle(Event.FAIL, None, "internal_error", message)

    async def _cancel(self) -> None:
        """Stop the provider's run, wait until it has ended, and end ours as cancelled whatever it says."""
        if self._unclear:
            await self._write(progress.mark_unknown)
        if self._claim.status is not Status.CANCELLING:
            await self._write(settling.start_cancelling)
        await self._settle(Event.CANCEL, await self._stop_at_provider())

    async def _expire(self) -> None:
        last = await self._stop_at_provider()
        await self._settle(Event.EXPIRE, last, "timeout", f"the run took longer than its {self._claim.timeout:g} s")

    async def _stop_at_provider(self) -> Ended | None:
        """Cancel the response in flight, if any, and return how it ended, which may be as if nobody had asked."""
        provider_id = self._provider_id
        if provider_id is None:
            return None
        self._held.cancel, self._held.cancel_seen = False, True
        self._held.changed.clear()
        self._ends_at = monotonic() + self._parts.settings.cancel_timeout
        try:
            await self._patiently(lambda: self._parts.backend.cancel(provider_id))
            return await self._wait(provider_id)
        except (TimeUp, ProviderError) as error:
            _log.warning("cancel_unconfirmed", provider_id=provider_id, error=str(error) or "no answer in time")
            self._unclear = True
            return None

    async def _settle(
        self, event: Event, last: Ended | None, code: str | None = None, message: str | None = None
    ) -> None:
        """Write the end, and what the last response leaves behind even where it came too late."""
        end = _end(event, last, code, message)
        settled = await self._write(settling.settle, replace(end, abandon=self._unclear))
        self._held.freed = settled.next_queue
        self._emit("run.ended", status=settled.status.value, code=code, end=end)

    # ── plumbing ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _write(self, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self._parts.store.write(unit, self._claim, *args, **kwargs)

    def _emit(self, name: str, **fields: Any) -> None:
        self._parts.events.emit(name, claim=self._claim, **fields)


def _end(event: Event, last: Ended | None, code: str | None, message: str | None) -> End:
    end = End(event, error_code=code, error_message=message, usage=last.usage if last else Usage())
    match last:
        case Done():
            return replace(end, output_text=last.text, answered=True, last_item=last.last_item)
        case NeedsTools():
            return replace(end, answered=True, left_open=last.calls, last_item=last.last_item)
    return end
