"""The worker's own client, and nothing else of the worker: its requests, their checks and meanings, nothing kept."""

import asyncio
import json
from dataclasses import replace

from benchmarks.provider import MODEL
from benchmarks.rivals.track import TEXT, Track, asked, race
from tools.arithmetic import calculate
from tools.registry import Registry
from worker.assistants.prices import Prices
from worker.backends.base import Done, Look, NeedsTools, Pending, Step
from worker.backends.responses.backend import ResponsesBackend
from worker.backends.transport.connections import Http
from worker.response import Answer

_TOOLS = tuple(one for one in Registry.load().tools if one.name == "calculate")


class Script:
    """Carries runs with the backend that the worker has for them."""

    def __init__(self, track: Track, backend: ResponsesBackend) -> None:
        self._track = track
        self._backend = backend

    async def carry(self, run: str) -> None:
        """Create a conversation and a response, wait, call the tool, hand its output in, wait."""
        step = Step(
            run_id=run,
            thread_id=run,
            attempt=1,
            number=0,
            conversation=(await self._backend.open_conversation(run)).id,
            config={"model": MODEL},
            tools=_TOOLS,
            input=[{"type": "text", "text": TEXT}],
            answers=(),
        )
        asking = await self._ended(step)
        assert isinstance(asking, NeedsTools)
        (call,) = asking.calls
        output = calculate(**json.loads(call.arguments))
        answers = [Answer(call.call_id, output, call.name, call.arguments)]
        answer = await self._ended(replace(step, number=1, input=(), answers=answers))
        assert isinstance(answer, Done)
        assert answer.text

    async def _ended(self, step: Step) -> Look:
        async with self._backend.slots:
            created = await self._backend.create(step)
        await asyncio.sleep(self._track.pause)
        while True:
            look = await self._backend.look(created.id)
            if not isinstance(look, Pending):
                return look
            await asyncio.sleep(self._track.pause)


async def main(track: Track) -> None:
    """Race."""
    http = Http(api_key="simulated", base_url=track.url, requests=track.requests, timeout=60.0)
    try:
        await race(track, Script(track, ResponsesBackend(http, Prices.load())).carry)
    finally:
        await http.close()


if __name__ == "__main__":
    asyncio.run(main(asked()))
