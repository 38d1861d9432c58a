"""Who reads waits for a place with a task, or stands in a line without one."""

import asyncio
from collections.abc import Callable

from worker.backends.bounds import Readers


def caller(called: list[str], name: str, *, waits: bool = True) -> Callable[[], bool]:
    """Return what notes that it is called and says whether it still waits."""

    def call() -> bool:
        called.append(name)
        return waits

    return call


def test_each_place_that_is_free_calls_one_who_still_waits() -> None:
    """Expected: the first of the line; one who waits no more is passed over, and the next is called."""
    called: list[str] = []

    async def story() -> list[list[str]]:
        readers = Readers(1)
        await readers.acquire()
        for name in ("gone", "first", "second"):
            readers.stand_in_line(caller(called, name, waits=name != "gone"))
        seen = [called[:]]
        readers.release()
        seen.append(called[:])
        await readers.acquire()  # as the one who was called does
        readers.release()
        return [*seen, called]

    assert asyncio.run(story()) == [[], ["gone", "first"], ["gone", "first", "second"]]


def test_one_who_waits_with_a_task_goes_first() -> None:
    """Expected: nobody is called into a place that somebody else has waited for."""
    called: list[str] = []

    async def story() -> list[str]:
        readers = Readers(1)
        await readers.acquire()
        waiting = asyncio.create_task(readers.acquire())
        await asyncio.sleep(0)
        readers.stand_in_line(caller(called, "later"))
        readers.release()
        await waiting
        early = called[:]
        readers.release()
        return early

    assert asyncio.run(story()) == []
    assert called == ["later"]
