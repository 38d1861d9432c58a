"""Thousands of runners in one process: claims what is due, passes on cancels, hands over at the end."""

import asyncio
import contextlib
import contextvars
import itertools
import os
import random
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import structlog
import uvloop

from worker.errors import LostClaim
from worker.lease import Lease
from worker.parts import Parts
from worker.reaping import Reaper, Strays
from worker.run.pace import Held
from worker.run.runner import Runner
from worker.sharing import Share, rung
from worker.store import claiming, leases
from worker.store.claiming import Claim

_log = structlog.get_logger(__name__)
_CANCEL_LOOK = 0.5
_LEASE_LOOK = 0.5
_CROWD_LOOK = 0.05
_CHUNK = 500  # runs that are handed over in one transaction
_LAST_WORDS = 5.0  # seconds for what cancelled tasks still have to write
_LAZIEST = 5.0  # an idle engine looks this many times less often: the doorbell wakes it anyway


class Engine:
    """One per worker process: a thread with an asyncio loop that every run of this worker lives on."""

    def __init__(
        self,
        node: str,
        queues: list[str],
        make_parts: Callable[[], Parts],
        ring: Callable[[Iterable[str]], None],
        http: str | None = None,
    ) -> None:
        """Prepare; `make_parts` is called on the loop of the engine; `http` is where this worker answers /metrics."""
        self.node = node
        self.queues = queues
        self.worker = str(uuid.uuid4())
        self._make_parts = make_parts
        self._ring = ring
        self._http = http
        self._held: dict[str, Held] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._let_go: dict[str, float | None] = {}  # and the seconds left where its time stood still
        self._claiming: asyncio.Future[list[Claim]] | None = None
        self._left = False
        self._told_to_stop = False
        self._due, self._stopping, self._hurry = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.ready = threading.Event()  # the worker is registered, or could not be
        self._failure: BaseException | None = None
        self._on_death: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # ── called from other threads ─────────────────────────────────────────────────────────────────────────────────

    def start(self, on_death: Callable[[], None]) -> None:
        """Start the loop and return when the worker is registered; on_death is called if the engine dies later."""
        self._on_death = on_death
        self._thread.start()
        self.ready.wait()
        if self._failure:
            raise self._failure

    def wake(self) -> None:
        """Look for due runs now."""
        self._on_loop(self._due.set)

    def begin_stop(self) -> None:
        """Stop claiming and hand every run over; called once more, give running tools no more time."""
        hurry, self._told_to_stop = self._told_to_stop, self._told_to_stop or self.ready.is_set()
        self._on_loop((self._hurry if hurry else self._stopping).set)

    def _on_loop(self, act: Callable[[], None]) -> None:
        if self.ready.is_set() and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(act)

    def stop(self, seconds: float) -> bool:
        """Hand every run over, and tell whether the loop has ended within these seconds, having told the database."""
        if not self._told_to_stop:
            self.begin_stop()
        if self.ready.is_set():
            self._thread.join(seconds)
        return (self._left or self.failed) and not self._thread.is_alive()

    @property
    def failed(self) -> bool:
        """Whether the engine has died by itself."""
        return self._failure is not None

    def holds(self) -> list[dict[str, Any]]:
        """Return what this worker drives now, for `celery inspect runs`."""
        claims = [held.claim for held in list(self._held.values())]
        return [
            {"id": c.run_id, "thread_id": c.thread_id, "assistant": c.assistant, "attempt": c.attempt} for c in claims
        ]

    # ── the loop ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        try:
            uvloop.run(self._main())
        except BaseException as error:  # noqa: BLE001 - whatever ended the engine must end the worker
            self._failure = error
            if self.ready.is_set():
                _log.critical("engine_died", exc_info=error)
        if self.ready.is_set():
            self._on_death()
        self.ready.set()

    async def _main(self) -> None:
        self._loop, self._context = asyncio.get_running_loop(), contextvars.copy_context()
        self._parts = self._make_parts()
        self._settings = self._parts.settings
        self._reaper, self._strays = Reaper(self._parts), Strays(self._parts.store)
        self._share = Share(self._settings.idle_poll / 2)
        await self._register()
        self.ready.set()
        side = [self._claim_loop, self._cancel_loop, self._reap_loop, self._lease_loop]
        tasks = [asyncio.create_task(self._until_stopped(loop()), name=loop.__name__) for loop in side]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await self._drain()

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """End a side task with the engine; one that dies by itself takes the worker with it."""
        task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            task.cancel()
            stopped.cancel()

    async def _register(self) -> None:
        room, lease = self._settings.max_in_flight, self._settings.lease
        whose: dict[str, Any] = {"node": self.node, "pid": os.getpid(), "queues": self.queues, "http": self._http}
        await self._parts.store.write(leases.register, self.worker, **whose, room=room, lease=lease)
        self._lease = Lease(self._settings.database_url, self.worker, lease, self._loop.call_soon_threadsafe)
        self._lease.start()

    def alive(self) -> bool:
        """Tell whether the claims of this worker hold for sure."""
        return self._lease.valid()

    async def _lease_loop(self) -> None:
        """Begin again under a new id when the lease is lost: our runs are others', whose fences refuse our writes."""
        while True:
            await asyncio.sleep(_LEASE_LOOK)
            if self._lease.lost.is_set():
                self._tell_all_to_let_go()
                self._held.clear()
                self.worker = str(uuid.uuid4())
                await self._register()
                self._due.set()
            elif not self._lease.is_alive():
                raise RuntimeError("the thread that renews the lease has died")

    # ── claiming ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _claim_loop(self) -> None:
        idle = 0
        while True:
            self._due.clear()
            taken = await self._claim()
            idle = 0 if taken or self._held else idle + 1
            if not taken or self._room() <= 0:
                await self._await_ring(idle)

    async def _claim(self) -> int:
        limit = min(self._room(), self._settings.claim_chunk)
        if limit <= 0:
            return 0
        part = await self._parts.store.read(claiming.share, self.worker, self.queues, len(self._held), limit)
        limit, whole = self._share.of(limit, part, self._loop.time()), limit
        if part is not None and limit < whole:
            self._ring(self.queues)
        if limit <= 0:
            return 0
        work = self._parts.store.write(claiming.claim, self.worker, self.queues, limit)
        self._claiming = asyncio.ensure_future(work)
        try:
            claims = await asyncio.shield(self._claiming)
        except LostClaim:
            return 0  # the lease thread finds the same and begins again under a new id
        self._claiming = None
        for claim in claims:
            self._carry(Held(claim, cancel=claim.cancelling, cancel_seen=claim.cancelling))
        if len(claims) == limit and self._room() <= 0:
            self._ring(self.queues)
        return len(claims)

    def _room(self) -> int:
        return 0 if self._parts.backends.crowded else self._settings.max_in_flight - len(self._held)

    async def _await_ring(self, idle: int) -> None:
        """Wait for the doorbell, a free place, or the next look; jittered, so that a fleet does not look in step."""
        seconds = self._settings.idle_poll * min(1.0 + idle / 10, _LAZIEST) * random.uniform(0.75, 1.25)
        await rung(self._due, min(seconds, _CROWD_LOOK) if self._parts.backends.crowded else seconds)

    # ── carrying ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _carry(self, held: Held) -> None:
        self._held[held.claim.run_id] = held
        self._go_on(held)

    def _go_on(self, held: Held) -> None:
        held.rests(None)
        task = asyncio.create_task(self._drive(held), name=f"run-{held.claim.run_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _let_rest(self, held: Held, seconds: float) -> None:
        """Go on after so many seconds, or when the run is told something; one that rests takes the least memory."""
        wake = partial(self._go_on, held)
        held.rests(self._loop.call_later(seconds, wake, context=self._context), wake)

    async def _drive(self, held: Held) -> None:
        claim, rests = held.claim, None
        structlog.contextvars.bind_contextvars(
            run_id=claim.run_id, thread_id=claim.thread_id, attempt=claim.attempt, worker=claim.worker
        )
        try:
            runner = held.runner = held.runner or Runner(held, self._parts, self.alive)
            try:
                rests = await runner.drive()
            except LostClaim:
                raise
            except Exception as error:  # noqa: BLE001 - a bug of ours must not lose the run, nor pay for it twice
                _log.exception("run_crashed")
                await runner.give_up(f"{type(error).__name__} in the worker; its log has the traceback")
        except LostClaim:
            self._parts.events.emit("claim.lost", claim=claim)
        except Exception:  # noqa: BLE001 - the run stays ours in the table until Strays finds it
            _log.exception("run_left_behind")
        finally:
            if rests is None:
                held.runner = None
                self._after(held)
            else:
                self._let_rest(held, rests)

    def _after(self, held: Held) -> None:
        """Look for what the runner has made due: now, when its pause is over, or at somebody else's door."""
        run_id = held.claim.run_id
        if self._held.get(run_id) is held:
            del self._held[run_id]
            if held.handed_over:  # one whose lease was lost is not ours to release: it may be ours anew
                self._let_go[run_id] = held.left
        self._due.set()
        if held.again_in is not None:
            self._loop.call_later(held.again_in, self._due.set)
        if held.freed is not None and held.freed not in self.queues:
            self._ring([held.freed])

    async def _cancel_loop(self) -> None:
        while True:
            await asyncio.sleep(_CANCEL_LOOK)
            if self._held:
                for run_id in await self._parts.store.read(leases.cancels, self.worker):
                    self._cancel(run_id)

    def _cancel(self, run_id: str) -> None:
        held = self._held.get(run_id)
        if held and not held.cancel_seen:
            held.tell(cancel=True)

    async def _reap_loop(self) -> None:
        for turn in itertools.count():
            await asyncio.sleep(self._settings.lease / 10 * random.uniform(0.75, 1.25))
            if turn % 5 == 0:
                self._parts.events.emit("worker.tended")
                if await self._strays.release(self.worker, self._held):
                    self._due.set()
            if await self._reaper.reap(self._lease):
                self._due.set()

    # ── stopping ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _tell_all_to_let_go(self) -> None:
        for held in self._held.values():
            held.tell(stop=True)

    async def _drain(self) -> None:
        """Let every waiting run go at once; creates in flight and running tools are finished, within the grace.

        What still runs then stays as a crash would leave it: its call has begun and its outcome is not known.
        """
        self._tell_all_to_let_go()
        await self._give_back()
        hurry = asyncio.ensure_future(self._hurry.wait())
        ends_at = self._loop.time() + self._settings.tool_grace
        while self._tasks and not hurry.done() and self._loop.time() < ends_at:
            left = ends_at - self._loop.time()
            await asyncio.wait({*self._tasks, hurry}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            await self._hand_over()
        hurry.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_WORDS)
        await self._parts.store.finish(_LAST_WORDS)
        await self._leave()
        self._lease.stop()
        await self._parts.close()

    async def _give_back(self) -> None:
        """Let go of what a claim that was under way has taken, and that no runner drives."""
        if self._claiming is None:
            return
        with contextlib.suppress(Exception):  # one that failed may be what the engine dies of: the rest goes on
            async with asyncio.timeout(self._settings.lease):
                self._let_go |= {claim.run_id: None for claim in await self._claiming}
        await self._hand_over()

    async def _hand_over(self) -> None:
        """Release the runs whose runners have let go, many in one transaction."""
        while self._let_go:
            chunk = dict(itertools.islice(self._let_go.items(), _CHUNK))
            self._let_go = {run: left for run, left in self._let_go.items() if run not in chunk}
            await self._parts.store.write(leases.hand_over, self.worker, chunk)

    async def _leave(self) -> None:
        """Take our row away; where the database is gone too, the lease runs out by itself."""
        try:
            async with asyncio.timeout(self._settings.lease):
                left = await self._parts.store.write(leases.leave, self.worker)
        except TimeoutError:
            _log.warning("left_without_goodbye", worker=self.worker)
        else:
            self._left = True
            self._parts.events.emit("worker.left", unfinished=left)
