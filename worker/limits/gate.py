"""The gate of one model: who waits for a place in its limits, the most urgent first."""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

import structlog

from worker.limits import told
from worker.limits.alone import Alone
from worker.limits.asking import Ask, Given, Left, Limits
from worker.limits.link import Link
from worker.limits.shared import Shared

_log = structlog.get_logger(__name__)
_BATCH = 16  # creates that one question to Redis is about
_LOOK = 2.0  # seconds between looks whether another worker has learnt of a limit
_FIRST = 10.0  # seconds that all others wait for the answer to the first create
_RENEW = 10.0
_LONGEST = 2.0  # seconds between questions, so that a changed limit is seen


@dataclass(order=True, slots=True)
class Waiter:
    """One create that waits; they are ordered by their turn: single runs before bulk, priority, arrival."""

    turn: tuple[bool, int, int]
    ask: Ask = field(compare=False)
    may_go: asyncio.Future[None] = field(compare=False)
    given: bool = field(default=False, compare=False)

    def go(self) -> None:
        """Let it go, unless it has gone away."""
        if not self.may_go.done():
            self.may_go.set_result(None)


class Gate:
    """What all creates of one model pass; `known` is called when the limits turn out to be others."""

    def __init__(self, link: Link, shared: Shared, set_limits: Limits, known: Callable[[Limits], None]) -> None:
        self.limits = set_limits
        """What holds now: the stricter of what was set and what the provider says."""
        self._link = link
        self._shared = shared
        self._alone = Alone()
        self._set = set_limits
        self._known = known
        self._told = Limits()
        self._left = Left()
        self._workers = 1
        self._answered = asyncio.Event()
        self._first_is_out = False
        self._silent_until = 0.0
        self._looked_at = 0.0
        self._waiting: list[Waiter] = []
        self._arrivals = itertools.count()
        self._urgent = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._held: set[str] = set()
        self._renewing: asyncio.Task[None] | None = None

    # ── in ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def is_open(self) -> bool:
        """Tell whether nothing limits a create, as far as is known; looks now and then, and waits for nothing.

        The first one goes alone, since its answer tells the limits: a thousand would be out before that is read.
        """
        now = monotonic()
        if self._is_limited() or (self._first_is_out and not self._answered.is_set()):
            return False
        self._first_is_out = True
        if now - self._looked_at > _LOOK:
            self._looked_at = now
            self._link.spawn(self._look())
        return True

    def _is_limited(self) -> bool:
        return any(self.limits) or monotonic() < self._silent_until

    async def enter(self, ask: Ask, priority: int) -> bool:
        """Return when this create may go out, and whether a place was reserved: there is no limit, else."""
        if not self._is_limited():
            with suppress(TimeoutError):
                # Not wait_for: on Python 3.11 it drops a cancel that comes together with the answer.
                async with asyncio.timeout(_FIRST):
                    await self._answered.wait()
            self._answered.set()
            if not self._is_limited():
                return False
        future = asyncio.get_running_loop().create_future()
        waiter = Waiter((ask.bulk, -priority, next(self._arrivals)), ask, future)
        heapq.heappush(self._waiting, waiter)
        if self._waiting[0] is waiter:
            self._urgent.set()
        if self._pump is None or self._pump.done():
            self._pump = self._link.spawn(self._let_in())
        try:
            await waiter.may_go
        except asyncio.CancelledError:
            if waiter.given:
                self.settle(ask, requests=1, tokens=ask.tokens)
            raise
        self._hold(ask.run_id)
        return True

    async def _let_in(self) -> None:
        """Ask for those who wait, in their turn, until nobody does."""
        batch: list[Waiter] = []
        try:
            while batch := self._next():
                self._urgent.clear()
                given = await self._reserve([waiter.ask for waiter in batch])
                for waiter, delay in zip(batch, given.delays, strict=False):
                    self._give(waiter, delay)
                rest = batch[len(given.delays) :]
                for waiter in rest:
                    heapq.heappush(self._waiting, waiter)
                if rest:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(min(given.wait, _LONGEST)):
                            await self._urgent.wait()
        except Exception as error:  # noqa: BLE001 - a bug of ours: whoever waits must hear of it
            for waiter in (*batch, *self._waiting):
                if not waiter.may_go.done():
                    waiter.may_go.set_exception(error)
            self._waiting.clear()

    def _next(self) -> list[Waiter]:
        batch: list[Waiter] = []
        while self._waiting and len(batch) < _BATCH:
            waiter = heapq.heappop(self._waiting)
            if not waiter.may_go.done():
                batch.append(waiter)
        return batch

    def _give(self, waiter: Waiter, delay: float) -> None:
        if waiter.may_go.done():  # it went away while Redis was asked
            return self.settle(waiter.ask, requests=1, tokens=waiter.ask.tokens)
        waiter.given = True
        asyncio.get_running_loop().call_later(delay, waiter.go)
        return None

    async def _reserve(self, asks: Sequence[Ask]) -> Given:
        left, self._left = self._left, Left()
        given = await self._link.ask(lambda: self._shared.reserve(self.limits, left, asks))
        if given is None:
            return self._alone.reserve(self.limits, self._workers, left, asks, len(self._held))
        self._workers = max(1, given.workers)
        # What this worker has learnt may not have got there yet, or be lost there.
        pairs = zip(given.limits, self._told, strict=True)
        self._obey(Limits(*(theirs or ours for theirs, ours in pairs)))
        return given

    async def _look(self) -> None:
        """See whether another worker has learnt of a limit, or was told to wait."""
        given = await self._reserve([])
        self._silent_until = max(self._silent_until, monotonic() + given.wait)

    # ── out ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def settle(self, ask: Ask, *, requests: int = 0, tokens: int = 0) -> None:
        """Give the run's place back, and what was reserved and not used."""
        self.forget(ask.run_id)
        place = ask.run_id if self.limits.runs else ""
        if place or (requests and self.limits.requests) or (tokens and self.limits.tokens):
            self._alone.settle(requests, tokens)
            self._link.tell(lambda: self._shared.settle(place, requests, tokens))
        self._urgent.set()

    def refused(self, seconds: float) -> None:
        """Hold everybody back: the provider has refused a create for its limits."""
        self._silent_until = max(self._silent_until, monotonic() + seconds)
        self._alone.refused(seconds)
        self._link.tell(lambda: self._shared.refused(seconds))

    def read(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer; the others are told only what is new."""
        self._left = told.left(headers)
        limits = told.limits(headers)
        if any(limits) and limits != self._told:
            self._told = limits
            self._obey(limits)
            self._link.tell(lambda: self._shared.learn(limits))

    def answered(self) -> None:
        """Note that a create has come back, whatever was said: nobody has to wait for the first answer any more."""
        self._answered.set()

    def forget(self, run_id: str) -> None:
        """Keep the run's place no longer: it is free, or another worker's to keep."""
        self._held.discard(run_id)

    def keep(self, run_id: str) -> None:
        """Take the place of a run that goes on at the provider already."""
        if self.limits.runs:
            self._hold(run_id)
            self._link.tell(lambda: self._shared.renew([run_id]))

    def _hold(self, run_id: str) -> None:
        if not self.limits.runs:
            return
        self._held.add(run_id)
        if self._renewing is None or self._renewing.done():
            self._renewing = self._link.spawn(self._renew())

    async def _renew(self) -> None:
        while self._held:
            await asyncio.sleep(_RENEW)
            held = list(self._held)
            if held:
                await self._link.ask(lambda: self._shared.renew(held))  # noqa: B023 - asked at once

    def _obey(self, learnt: Limits) -> None:
        limits = self._set.within(learnt)
        if limits != self.limits:
            self.limits = limits
            self._known(limits)
