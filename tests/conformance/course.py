"""Runs on a real store, driven by real runners, each by a real backend over a real socket to the simulator."""

import asyncio
import contextlib
from typing import Any

from sqlalchemy import select

from tests.conformance.ground import Ground
from tests.driving import drive_on
from tests.servers import Simulator
from tests.workbench import parts
from tools.registry import tool
from worker.models import Attempt, EventRow, ToolCall
from worker.parts import Parts
from worker.run.pace import Held
from worker.store import assistants, leases

LIMIT = 20.0  # seconds that anything may take


class Course:
    """One backend on one database; `looked` are the names that the tool was called with."""

    def __init__(self, ground: Ground, simulator: Simulator, protocol: str, **settings: object) -> None:
        self.ground = ground
        self.simulator = simulator
        self.protocol = protocol
        self.looked: list[str] = []
        self.endless = False
        """Whether the tool never returns."""
        self._moment, self._times = "", 0
        self._settings = settings
        config = {"model": "gpt-6-luna", "tools": ["look_up"], "backend": {"protocol": protocol}}
        ground.assistant_id = ground.write(assistants.apply, "clerk", config)[0].id
        ground.boot("w1"), ground.boot("w2")

    def submit(self, text: str, thread: str = "t") -> str:
        """Submit a run that asks this."""
        return self.ground.submit(thread, input=[{"type": "text", "text": text}])

    def parts(self) -> Parts:
        """Return the parts of a worker; to be made on its loop."""
        looked = self.looked

        @tool(effect="read")
        async def look_up(name: str) -> str:
            """Look something up."""
            looked.append(name)
            self._heard("look_up")
            if self.endless:
                await asyncio.Event().wait()
            return f"{name} stands in the book"

        self._reached = asyncio.Event()
        settings = {"openai_base_url": self.simulator.url, "adoption_wait": 1, "tool_grace": 5, **self._settings}
        made = parts(self.ground, None, look_up, **settings)
        made.events.subscribe(lambda name, _fields: self._heard(name))
        return made

    def _heard(self, name: str) -> None:
        self._times -= name == self._moment
        if self._times == 0:
            self._reached.set()

    async def drive(self, bench: Parts, worker: str = "w1") -> Held:
        """Claim the run that is due and drive it until its runner lets go."""
        held = Held(self.ground.take(worker))
        async with asyncio.timeout(LIMIT):
            await drive_on(held, bench)
        return held

    def carry(self, worker: str = "w1", *, rounds: int = 1) -> None:
        """Let a worker carry what is due, one run after the other; a retry is due at once."""

        async def main() -> None:
            bench = self.parts()
            for _ in range(rounds):
                await self.drive(bench, worker)
            await bench.backends.close()

        asyncio.run(main())

    def disturb(self, moment: str, times: int = 1, **told: bool) -> Held:
        """Drive what is due until this has happened, so many times, then tell its runner this, or kill it.

        A moment is an event of the worker's, or `look_up` for a call of the tool.
        """
        self._moment, self._times = moment, times

        async def main() -> Held:
            bench = self.parts()
            held = Held(self.ground.take("w1"))
            driving = asyncio.create_task(drive_on(held, bench))
            reached = asyncio.create_task(self._reached.wait())
            async with asyncio.timeout(LIMIT):
                await asyncio.wait({driving, reached}, return_when=asyncio.FIRST_COMPLETED)
                assert reached.done(), f"the run ended first: {driving}"
                if told:
                    held.tell(**told)
                    await driving
            driving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await driving
            await bench.backends.close()
            return held

        held = asyncio.run(main())
        if not told:
            self.ground.end_lease("w1")
            self.ground.write(leases.reap)
            self.ground.boot("w1")
        return held

    def events(self) -> list[str]:
        """Return the names of all events, in order."""
        with self.ground.database.read() as connection:
            return list(connection.execute(select(EventRow.name).order_by(EventRow.id)).scalars())

    def attempts(self) -> list[Any]:
        """Return all attempts."""
        with self.ground.database.read() as connection:
            return list(connection.execute(select(Attempt).order_by(Attempt.started_at)))

    def calls(self) -> list[Any]:
        """Return all tool calls."""
        with self.ground.database.read() as connection:
            return list(connection.execute(select(ToolCall).order_by(ToolCall.step, ToolCall.position)))

    def repeated(self) -> int:
        """Return how many steps the provider has carried out more than once."""
        return int(self.simulator.counters()["duplicate_steps"])
