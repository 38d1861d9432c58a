"""Daemon threads in a bounded number: a stuck one costs its place, never the process's exit."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Threads(Generic[T]):
    """At most `size` threads at once, a fresh one for each piece of work.

    concurrent.futures would join its threads at the interpreter's exit, and so wait for a stuck one.
    """

    def __init__(self, size: int) -> None:
        self._free = asyncio.Semaphore(size)

    async def place(self) -> None:
        """Wait for a free place; `start` must follow, and takes it."""
        await self._free.acquire()

    def start(self, work: Callable[[], T], name: str) -> asyncio.Future[T]:
        """Run `work`, which must not raise; its place is free again when the thread has really ended."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def ended(result: T) -> None:
            self._free.release()
            if not future.done():
                future.set_result(result)

        def run() -> None:
            result = context.run(work)
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(ended, result)

        try:
            threading.Thread(target=run, name=name, daemon=True).start()
        except RuntimeError:  # the system gives no more threads
            self._free.release()
            raise
        return future
