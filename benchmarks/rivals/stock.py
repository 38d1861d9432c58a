"""The script that everybody would write: asyncio and the stock client, requests bounded since it collapses without."""

import asyncio
import json
from typing import Any

import openai

from benchmarks.rivals.track import Track, asked, first, race, second
from tools.arithmetic import calculate


class Script:
    """Carries runs with AsyncOpenAI as it comes."""

    def __init__(self, track: Track, client: openai.AsyncOpenAI) -> None:
        self._track = track
        self._client = client
        self._bound = asyncio.Semaphore(track.requests)

    async def carry(self, run: str) -> None:
        """Create a conversation and a response, wait, call the tool, hand its output in, wait."""
        async with self._bound:
            conversation = (await self._client.conversations.create(metadata={"thread_id": run})).id
        asking = await self._ended({**first(run), "conversation": conversation})
        call = next(item for item in asking.output if item.type == "function_call")
        output = calculate(**json.loads(call.arguments))
        answer = await self._ended({**second(run, call.call_id, output), "conversation": conversation})
        assert answer.output_text

    async def _ended(self, body: dict[str, Any]) -> Any:
        async with self._bound:
            response = await self._client.responses.create(**body)
        while response.status in {"queued", "in_progress"}:
            await asyncio.sleep(self._track.pause)
            async with self._bound:
                response = await self._client.responses.retrieve(response.id)
        return response


async def main(track: Track) -> None:
    """Race."""
    async with openai.AsyncOpenAI(base_url=track.url, api_key="simulated") as client:
        await race(track, Script(track, client).carry)


if __name__ == "__main__":
    asyncio.run(main(asked()))
