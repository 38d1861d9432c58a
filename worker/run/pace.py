"""How a runner waits: pauses that the engine can end, requests repeated for as long as the run has time."""

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Any, Protocol, TypeVar

from worker.errors import ProviderError
from worker.parts import Parts
from worker.retries import backoff
from worker.store import progress
from worker.store.claiming import Claim

T = TypeVar("T")
_LEASE_LOOK = 0.1
_WORTH_A_WRITE = 1.0
_LONGEST = 3600.0  # seconds; no single answer keeps a run waiting for longer
_TOLD = 3  # refusals of one request, after which the run's journal tells of them, once


class Driven(Protocol):
    """What carries a held run."""

    async def drive(self) -> float | None:
        """Carry it on; returns the seconds after which to do so again, None where it is let go."""
        ...

    async def give_up(self, message: str) -> None:
        """Let it go where it cannot be carried."""
        ...


@dataclass(slots=True)
class Held:
    """A run this worker holds, and what the engine has to tell its runner."""

    claim: Claim
    cancel: bool = False
    cancel_seen: bool = False
    stopping: bool = False
    handed_over: bool = False
    """What the runner leaves to the engine: to release the run with the others that are let go."""
    left: float | None = None
    """The seconds that it has left then, where its time stood still."""
    freed: str | None = None
    """The queue of the run that got the turn."""
    again_in: float | None = None
    """In how many seconds this run is due again."""
    runner: Driven | None = None
    """Who carries it, between two times as well."""
    _listener: Callable[[], None] | None = None
    _alarm: asyncio.TimerHandle | None = None

    def tell(self, *, stop: bool = False, cancel: bool = False) -> None:
        """Tell the runner that its worker stops, or that somebody asked for a cancel, and wake it where it waits."""
        self.stopping = self.stopping or stop
        if cancel and not self.cancel_seen:
            self.cancel = self.cancel_seen = True
        if self._listener is not None:
            self._listener()

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Call the listener whenever something is told; nobody listens where there is none."""
        self._listener = listener

    def rests(self, alarm: asyncio.TimerHandle | None, wake: Callable[[], None] | None = None) -> None:
        """Wait for the alarm to go off, or for what is told; no alarm ends that."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = alarm
        self.listen(wake)

    @contextmanager
    def heard_by(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call the listener whenever something is told meanwhile; a run waits at one place at a time."""
        self.listen(listener)
        try:
            yield
        finally:
            if self._listener is listener:  # else another one listens already, while this one was being cancelled
                self._listener = None


class HandOver(Exception):
    """The worker stops: let the run go as it is."""


class CancelAsked(Exception):
    """Somebody asked to cancel the run."""


class TimeUp(Exception):
    """The run's time limit has passed."""


class Rest(Exception):
    """The run has nothing to do for some seconds, and its runner is to be driven again then, or when it is told.

    Where that is so long that no worker has to hold it meanwhile, its step was last looked at `unseen` seconds ago.
    """

    def __init__(self, seconds: float, *, unseen: float | None = None) -> None:
        super().__init__(seconds)
        self.seconds = seconds
        self.unseen = unseen


class Pace:
    """One run's time and the engine's word on it; `alive` tells whether the worker's lease holds."""

    __slots__ = ("_alive", "_began_at", "_stood", "claim", "ends_at", "held", "parts", "settings")

    def __init__(self, held: Held, parts: Parts, alive: Callable[[], bool]) -> None:
        self.held = held
        self.claim = held.claim
        self.parts = parts
        self.settings = parts.settings
        self.ends_at = monotonic() + held.claim.seconds_left
        # What it had taken when it was claimed, so that a run which was handed over counts from its first claim.
        self._began_at = monotonic() - max(0.0, held.claim.timeout - held.claim.seconds_left)
        self._stood = held.claim.stood
        self._alive = alive

    def heed(self, *, stop: bool = True) -> None:
        """Raise what the engine or the clock says: HandOver, CancelAsked or TimeUp; without `stop` not the first."""
        if stop and self.held.stopping:
            raise HandOver
        if self.held.cancel:
            raise CancelAsked
        if monotonic() >= self.ends_at:
            raise TimeUp

    def seconds_left(self) -> float:
        """Return the seconds that the run may still take."""
        return max(0.0, self.ends_at - monotonic())

    def seconds_taken(self) -> float:
        """Return the seconds that the run has taken, waits for people, retries and limits left out."""
        return round(monotonic() - self._began_at, 3)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Let the run's time stand still: a limit holds it back, and nobody knows for how long."""
        since, left = monotonic(), self.seconds_left()
        self.ends_at = math.inf
        try:
            yield
        finally:
            stood = monotonic() - since
            self.ends_at = since + stood + left
            self._began_at += stood
            self._stood += stood

    def moved(self) -> float | None:
        """Return the seconds left where the deadline that is written is not the run's any more, as is to be told once.

        What stood still for less than a second is not worth a write.
        """
        if self._stood < _WORTH_A_WRITE:
            return None
        self._stood = 0.0
        return self.seconds_left()

    def last(self, seconds: float) -> None:
        """Take the cancel as heard and give what is left to do so many seconds from now."""
        self.held.cancel, self.held.cancel_seen = False, True
        self.ends_at = monotonic() + seconds

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Let what is done inside have another end of its time than the run has."""
        own_end = self.ends_at
        try:
            yield
        finally:
            self.ends_at = own_end

    async def pause(self, seconds: float) -> None:
        """Wait, unless there is something to heed."""
        self.heed()
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        # A bare future: thousands of runs wait here, and an Event with a timeout around it is ten times its size.
        timer = loop.call_later(min(seconds, self.seconds_left()), _set, over)
        try:
            with self.held.heard_by(partial(_set, over)):
                await over
        finally:
            timer.cancel()
        self.heed()

    def rest_until(self, moment: float, seen: float) -> None:
        """Raise Rest unless that moment of the monotonic clock has come; `seen` is when the step was last looked at."""
        now = monotonic()
        if moment > now:
            seconds = min(moment - now, self.seconds_left())
            raise Rest(seconds, unseen=now - seen if seconds >= self.settings.park_after else None)

    async def _pause_or_outage(self, seconds: float) -> None:
        """Wait so long, or until shortly after the end of an outage."""
        pause = asyncio.create_task(self.pause(seconds))
        over = asyncio.create_task(self.parts.outage.over())
        try:
            await asyncio.wait({pause, over}, return_when=asyncio.FIRST_COMPLETED)
            if pause.done():
                pause.result()
        finally:
            pause.cancel()
            over.cancel()
        self.heed()

    async def unless_told(self, request: Callable[[], Coroutine[Any, Any, T]], *, stop: bool = True) -> T:
        """Make a request, and leave it as soon as there is something to heed; without `stop` not for a hand-over."""
        self.heed(stop=stop)

        def told() -> None:
            # One that has just passed cannot be moved any more.
            if (stop or self.held.cancel) and not limit.expired():
                limit.reschedule(0.0)

        try:
            async with asyncio.timeout(self.seconds_left()) as limit:
                with self.held.heard_by(told):
                    return await request()
        except TimeoutError:
            if not limit.expired():
                raise
            self.heed(stop=stop)
            raise TimeUp from None

    async def patiently(self, request: Callable[[], Coroutine[Any, Any, T]], *, whole: bool = False) -> T:
        """Repeat a request that fails in passing, with growing pauses; raises ProviderError for what will not pass.

        One that must be `whole` is not left when there is something to heed, only not repeated.

        A provider that is away costs no attempt: the run waits here. Half of each pause is chance, and when one run's
        request passes the others come back one after another, so that a thousand do not come back at once. What its
        limits refuse before there is any work costs the run no time either.
        """
        failures = 0
        while True:
            try:
                answer = await (request() if whole else self.unless_told(request))
            except ProviderError as error:
                if not error.transient:
                    raise
                failures += 1
                if error.retry_after is None:
                    self.parts.outage.failed()
                told = None if error.retry_after is None else min(error.retry_after, _LONGEST)
                wait = backoff(failures, self.settings.retry_min, self.settings.retry_max, told)
                self.emit("provider.refused", code=error.code, failures=failures, seconds=round(wait, 2))
                if failures == _TOLD:
                    await self.write(progress.refused, error.code, failures)
                limited = whole and error.status == HTTPStatus.TOO_MANY_REQUESTS
                with self.held_back() if limited else nullcontext():
                    await self._pause_or_outage(wait)
            else:
                self.parts.outage.passed()
                if failures >= _TOLD:
                    await self.write(progress.refused, None, failures)
                return answer

    async def until_leased(self) -> None:
        """Hold back from the outside while our claims may be another's, until the lease is renewed or lost."""
        while not self._alive():
            await self.pause(_LEASE_LOOK)

    async def write(self, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Commit one unit of the store under this run's claim; raises LostClaim."""
        return await self.parts.store.commit(self.claim, unit, *args, **kwargs)

    def emit(self, name: str, **fields: Any) -> None:
        """Say what happened to the run."""
        self.parts.events.emit(name, claim=self.claim, **fields)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
