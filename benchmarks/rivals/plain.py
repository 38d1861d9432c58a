"""The floor: aiohttp, the worker's requests, and nothing else."""

import asyncio
import json
from typing import Any

import aiohttp

from benchmarks.rivals.track import Track, asked, first, race, second
from tools.arithmetic import calculate


class Script:
    """Carries runs with plain aiohttp."""

    def __init__(self, track: Track, session: aiohttp.ClientSession) -> None:
        self._track = track
        self._session = session

    async def carry(self, run: str) -> None:
        """Create a conversation and a response, wait, call the tool, hand its output in, wait."""
        conversation = (await self._post("/conversations", {"metadata": {"thread_id": run}}))["id"]
        asking = await self._ended({**first(run), "conversation": conversation})
        call = next(item for item in asking["output"] if item["type"] == "function_call")
        output = calculate(**json.loads(call["arguments"]))
        answer = await self._ended({**second(run, call["call_id"], output), "conversation": conversation})
        assert answer["output"][-1]["content"][0]["text"]

    async def _ended(self, body: dict[str, Any]) -> dict[str, Any]:
        ident = (await self._post("/responses", body))["id"]
        await asyncio.sleep(self._track.pause)
        while True:
            async with self._session.get(f"{self._track.url}/responses/{ident}") as answer:
                response: dict[str, Any] = json.loads(await answer.read())
            if response["status"] not in {"queued", "in_progress"}:
                return response
            await asyncio.sleep(self._track.pause)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        async with self._session.post(self._track.url + path, data=json.dumps(body), headers=headers) as answer:
            response: dict[str, Any] = json.loads(await answer.read())
        return response


async def main(track: Track) -> None:
    """Race."""
    connector = aiohttp.TCPConnector(limit=track.requests)
    headers = {"Authorization": "Bearer simulated"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        await race(track, Script(track, session).carry)


if __name__ == "__main__":
    asyncio.run(main(asked()))
