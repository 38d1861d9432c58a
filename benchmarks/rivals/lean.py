"""The stock client without its models: its raw requests, its own transport."""

import asyncio
import json
from typing import Any

import httpx2
import openai

from benchmarks.rivals.track import Track, asked, first, race, second
from tools.arithmetic import calculate


class Script:
    """Carries runs with AsyncOpenAI's post and get."""

    def __init__(self, track: Track, client: openai.AsyncOpenAI) -> None:
        self._track = track
        self._client = client
        self._bound = asyncio.Semaphore(track.requests)

    async def carry(self, run: str) -> None:
        """Create a conversation and a response, wait, call the tool, hand its output in, wait."""
        conversation = (await self._post("/conversations", {"metadata": {"thread_id": run}}))["id"]
        asking = await self._ended({**first(run), "conversation": conversation})
        call = next(item for item in asking["output"] if item["type"] == "function_call")
        output = calculate(**json.loads(call["arguments"]))
        answer = await self._ended({**second(run, call["call_id"], output), "conversation": conversation})
        assert answer["output"][-1]["content"][0]["text"]

    async def _ended(self, body: dict[str, Any]) -> dict[str, Any]:
        response = await self._post("/responses", body)
        while response["status"] in {"queued", "in_progress"}:
            await asyncio.sleep(self._track.pause)
            async with self._bound:
                raw = await self._client.get(f"/responses/{response['id']}", cast_to=httpx2.Response)
            response = json.loads(raw.content)
        return response

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self._bound:
            raw = await self._client.post(path, body=body, cast_to=httpx2.Response)
        response: dict[str, Any] = json.loads(raw.content)
        return response


async def main(track: Track) -> None:
    """Race."""
    async with openai.AsyncOpenAI(base_url=track.url, api_key="simulated") as client:
        await race(track, Script(track, client).carry)


if __name__ == "__main__":
    asyncio.run(main(asked()))
