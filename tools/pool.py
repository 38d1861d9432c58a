"""Daemon threads in a bounded number: a stuck one costs its place, never the process's exit."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")
Work = Callable[[], object]


class Threads(Generic[T]):
    """At most `size` threads at once, started when they are needed and kept for the next piece of work.

    concurrent.futures would join its threads at the interpreter's exit, and so wait for a stuck one.
    """

    def __init__(self, size: int) -> None:
        self._free = asyncio.Semaphore(size)
        self._work: SimpleQueue[tuple[Work, str] | None] = SimpleQueue()
        self._idle = 0

    async def place(self) -> None:
        """Wait for a free place; `start` must follow, and takes it."""
        await self._free.acquire()

    def start(self, work: Callable[[], T], name: str) -> asyncio.Future[T]:
        """Run `work`, which must not raise; its place is free again when it has really ended."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def ended(result: T) -> None:
            self._idle += 1
            self._free.release()
            if not future.done():
                future.set_result(result)

        def run() -> None:
            result = context.run(work)
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(ended, result)

        if self._idle:
            self._idle -= 1
        else:
            self._grow()
        self._work.put((run, name))
        return future

    def _grow(self) -> None:
        try:
            threading.Thread(target=_carry_out, args=(self._work,), name="tool", daemon=True).start()
        except RuntimeError:  # the system gives no more threads
            self._free.release()
            raise

    def close(self) -> None:
        """Let the idle threads end."""
        for _ in range(self._idle):
            self._work.put(None)
        self._idle = 0


def _carry_out(given: "SimpleQueue[tuple[Work, str] | None]") -> None:
    """Do one piece of work after another, under its name; the start of a thread costs as much as a request."""
    while (one := given.get()) is not None:
        work, threading.current_thread().name = one
        work()
        del one, work  # what it holds is not to live until the next piece comes
