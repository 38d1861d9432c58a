"""Who reads waits for a place with a task, or stands in a line without one."""

import asyncio
from collections.abc import Callable
from functools import partial

from worker.backends.bounds import Readers


def caller(called: list[str], name: str) -> Callable[[], None]:
    """Return what notes that it is called."""
    return partial(called.append, name)


def test_each_place_that_is_free_calls_one_who_still_waits() -> None:
    """Expected: the first of the line; one who has left it is passed over, and the next is called."""
    called: list[str] = []

    async def story() -> list[list[str]]:
        readers = Readers(1)
        await readers.acquire()
        calls = {name: caller(called, name) for name in ("gone", "first", "second")}
        for call in calls.values():
            readers.stand_in_line(call)
        readers.leave_line(calls["gone"])
        seen = [called[:]]
        readers.release()
        seen.append(called[:])
        await readers.acquire()  # as the one who was called does
        readers.release()
        return [*seen, called]

    assert asyncio.run(story()) == [[], ["first"], ["first", "second"]]


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


def test_places_that_come_free_together_are_all_taken() -> None:
    """Expected: one waits with a task and two stand in line; three places that end in one turn go to the three."""
    called: list[str] = []

    async def story() -> None:
        readers = Readers(3)
        for _ in range(3):
            await readers.acquire()
        waiting = asyncio.create_task(readers.acquire())
        await asyncio.sleep(0)
        for name in ("first", "second"):
            readers.stand_in_line(caller(called, name))
        for _ in range(3):
            readers.release()
        await waiting
        await readers.acquire()  # as the first one does

    asyncio.run(story())
    assert called == ["first", "second"]


def test_a_place_that_was_not_taken_after_all_calls_the_next() -> None:
    """Expected: where one is given the place and cancelled in the same moment, the line goes on."""
    called: list[str] = []

    async def story() -> None:
        readers = Readers(1)
        await readers.acquire()
        waiting = asyncio.create_task(readers.acquire())
        await asyncio.sleep(0)
        readers.stand_in_line(caller(called, "next"))
        readers.release()
        waiting.cancel()
        await asyncio.wait({waiting})

    asyncio.run(story())
    assert called == ["next"]
