"""Drives one held run as an engine does, without an engine."""

import asyncio
from contextlib import suppress

from worker.parts import Parts
from worker.run.pace import Held
from worker.run.runner import Runner


async def drive_on(held: Held, bench: Parts) -> None:
    """Drive a run until it is let go, with a lease that holds; where it rests, until its time or a word to it."""
    runner = held.runner = Runner(held, bench, lambda: True)
    try:
        while (seconds := await runner.drive()) is not None:
            told = asyncio.Event()
            held.listen(told.set)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await told.wait()
    finally:
        held.runner = None
