"""One run's life, readable top to bottom: start or re-attach → wait → tools → submit → … → settle."""

from collections.abc import Callable
from typing import Any

from worker.backends.base import Done, Ended, Failed, NeedsTools
from worker.backends.transport.faults import CONVERSATION_GONE
from worker.errors import ProviderError
from worker.lifecycle import Event, Status
from worker.parts import Parts
from worker.retries import backoff
from worker.run.calls import Asking
from worker.run.chain import Chain
from worker.run.pace import CancelAsked, HandOver, Held, Pace, Rest, TimeUp
from worker.store import ledger, progress, settling
from worker.store.settling import End

_MOST_CRASHES = 3
_BUG = "internal_error"


class Runner:
    """Drives one held run until it has ended, waits for a person or a further attempt, or is handed over."""

    __slots__ = ("_begun", "_chain", "_claim", "_held", "_pace", "_parts", "_settings")

    def __init__(self, held: Held, parts: Parts, alive: Callable[[], bool]) -> None:
        self._held = held
        self._claim = held.claim
        self._parts = parts
        self._settings = parts.settings
        self._pace = Pace(held, parts, alive)
        self._chain = Chain(self._pace)
        self._begun = False

    async def drive(self) -> float | None:
        """Carry the run on from where its rows say it stands; raises LostClaim when it is no longer ours.

        Returns the seconds after which to go on where there is nothing to do meanwhile, None where the run is let go:
        it has ended, waits for a person or a further attempt, is handed over, or parked until a look that is far off.
        """
        rests = False
        try:
            await self._go_on()
        except Rest as rest:
            rests = rest.unseen is None or self._parts.limits.counts_runs(self._claim.config)
            if rests:
                return rest.seconds
            await self._pace.write(settling.park_until_look, rest.seconds, rest.unseen, self._pace.moved())
        finally:
            if not rests:
                self._chain.close()
        return None

    async def _go_on(self) -> None:
        try:
            if not self._begun:
                self._begun = True
                if self._claim.seen is None:
                    self._pace.emit("run.claimed")
                self._chain.open()
            await self._to_its_end()
        except HandOver:
            self._held.handed_over = True  # the engine lets go of all such runs at once
            self._held.left = self._pace.moved() if self._chain.begun else None
            self._pace.emit("run.handed_over")
        except ProviderError as error:
            await self.give_up(error.message, error.code)
        except Asking:
            await self._pace.write(settling.park_until_answer, self._pace.seconds_left())
            self._pace.emit("run.parked")

    async def _to_its_end(self) -> None:
        try:
            await self._course()
        except CancelAsked:
            await self._cancel()
        except TimeUp:
            await self._expire()
        except ProviderError as error:
            last = await self._chain.let_go()
            self._chain.leave_if_open()
            gone = error.code == CONVERSATION_GONE  # a fresh one takes its place, with the thread's messages
            if gone:
                self._chain.leave()
            await self._fail(Failed.after(last, error.code, error.message, transient=error.transient or gone))

    async def _course(self) -> None:
        while True:
            self._pace.heed()
            match await self._chain.ended():
                case NeedsTools() as asked:
                    await self._take_calls(asked)
                case Done() as done:
                    return await self._finish(done)
                case Failed() as failed:
                    return await self._fail(failed)

    async def _take_calls(self, asked: NeedsTools) -> None:
        tools = {call.name: self._parts.registry.get(call.name) for call in asked.calls}
        await self._pace.write(
            progress.need_tools,
            step=self._chain.number,
            calls=asked.calls,
            effects={name: tool.effect for name, tool in tools.items() if tool is not None},
            usage=asked.usage,
            last_item=asked.last_item,
            added=asked.items,
            hosted=asked.hosted,
            adopted=self._chain.adopted,
        )
        self._chain.settled(asked)
        self._pace.emit("run.requires_action", tools=[call.name for call in asked.calls], usage=asked.usage)

    # ── ends ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _finish(self, done: Done) -> None:
        if done.stopped_by is None:
            return await self._settle(Event.COMPLETE, done)
        return await self._settle(Event.STOP_SHORT, done, done.stopped_by, f"the answer was cut: {done.stopped_by}")

    async def _fail(self, failed: Failed) -> None:
        """Queue a further attempt where the failure may pass and one is left; else the run has failed."""
        claim, settings = self._claim, self._settings
        if not failed.transient or claim.attempt >= claim.max_attempts:
            return await self._settle(Event.FAIL, failed, failed.code, failed.message)
        if self._chain.unclear and await self._parts.store.read(ledger.began_once, claim.run_id):
            told = f"{failed.message}; starting over could repeat a call that must not run twice"
            return await self._settle(Event.FAIL, failed, failed.code, told)
        delay = backoff(claim.attempt, settings.retry_min, settings.retry_max)
        end = _end(Event.FAIL, failed, failed.code, failed.message, abandon=self._chain.unclear)
        await self._pace.write(settling.retry, delay, end, self._pace.seconds_left())
        self._held.again_in = delay
        return self._pace.emit("run.retried", code=failed.code, seconds=round(delay, 2), usage=failed.usage)

    async def give_up(self, message: str, code: str = _BUG) -> None:
        """Let the run go for a while where this worker cannot carry it; one that none can time and again has failed."""
        delay = backoff(self._claim.attempt, self._settings.retry_min, self._settings.retry_max)
        most: int | None = _MOST_CRASHES
        if code != _BUG and self._is_for_a_look():
            # In hours of looks by any worker, one that lacks its key comes time and again; the run's own time bounds
            # that. Not at once: what goes on is claimed before what is to begin.
            delay, most = min(max(delay, self._settings.park_after), self._pace.seconds_left()), None
        if await self._pace.write(settling.crashed, delay, most):
            self._held.again_in = delay
            return self._pace.emit("run.crashed", message=message, seconds=round(delay, 2))
        self._chain.leave_if_open()
        return await self._settle(Event.FAIL, None, code, message)

    def _is_for_a_look(self) -> bool:
        """Tell whether the run was parked until the next look, and nothing else is to be done with it."""
        return self._claim.seen is not None and not self._held.cancel and self._pace.seconds_left() > 0

    async def _cancel(self) -> None:
        """Stop the provider's run, wait until it has ended, and end ours as cancelled whatever it says."""
        if self._claim.status is not Status.CANCELLING:
            await self._pace.write(settling.start_cancelling)
        await self._settle(Event.CANCEL, await self._chain.stop())

    async def _expire(self) -> None:
        last = await self._chain.stop()
        if isinstance(last, Done):  # whole, and paid for: it came since the last look, which may be long ago
            return await self._finish(last)
        return await self._settle(
            Event.EXPIRE, last, "timeout", f"the run took longer than its {self._claim.timeout:g} s"
        )

    async def _settle(
        self, event: Event, last: Ended | None, code: str | None = None, message: str | None = None
    ) -> None:
        """Write the end, and what the last response leaves behind even where it came too late."""
        end = _end(event, last, code, message, abandon=self._chain.unclear, adopted=self._chain.adopted)
        settled = await self._pace.write(settling.settle, end)
        self._held.freed = settled.next_queue
        ended_at = last.at if isinstance(last, Done) else None
        told = {"status": settled.status.value, "code": code, "seconds": self._pace.seconds_taken()}
        self._pace.emit("run.ended", **told, usage=end.usage, provider_ended_at=ended_at)


def _end(
    event: Event,
    last: Ended | None,
    code: str | None,
    message: str | None,
    *,
    abandon: bool = False,
    adopted: bool = False,
) -> End:
    """Return an end with what the last response leaves behind."""
    left: dict[str, Any] = {} if last is None else {"usage": last.usage, "hosted": last.hosted}
    match last:
        case Done():
            left |= {"output_text": last.text, "parts": last.parts}
            left |= {"answered": True, "last_item": last.last_item, "items": last.items}
        case NeedsTools():
            left |= {"left_open": last.calls}
            left |= {"answered": True, "last_item": last.last_item, "items": last.items}
        case Failed():
            left["tail_unknown"] = True
    return End(event, error_code=code, error_message=message, abandon=abandon, adopted=adopted, **left)
