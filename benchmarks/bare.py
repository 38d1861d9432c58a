"""The rival: plain asyncio with the stock client makes the same requests for the same runs, and keeps nothing."""

import asyncio
import sys
import time
from typing import Any

import openai

from tools.arithmetic import calculate

MODEL = "gpt-5-mini"
TEXT = '[[call calculate {"expression": "12*7+3"}]] [[then]] [[say done]]'
FUNCTION: dict[str, Any] = {
    "type": "function",
    "name": "calculate",
    "description": "Work out an expression.",
    "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
    "strict": False,
}


async def run(client: openai.AsyncOpenAI, number: int) -> None:
    """Carry one run to its end: create, poll, call the tool, submit, poll."""
    conversation = await client.conversations.create()
    given: list[Any] = [{"type": "message", "role": "user", "content": TEXT}]
    for step in range(2):
        response = await client.responses.create(
            model=MODEL,
            input=given,
            conversation=conversation.id,
            tools=[FUNCTION],  # type: ignore[list-item]  # the same JSON that the worker sends
            background=True,
            store=True,
            metadata={"run_id": f"bare-{number}", "step": str(step)},
        )
        while response.status in {"queued", "in_progress"}:
            await asyncio.sleep(0.05)
            response = await client.responses.retrieve(response.id)
        calls = [item for item in response.output if item.type == "function_call"]
        given = [
            {"type": "function_call_output", "call_id": call.call_id, "output": calculate("12*7+3")} for call in calls
        ]


async def main(base_url: str, runs: int, at_once: int) -> None:
    """Carry all runs, `at_once` at a time, and print the seconds of wall clock and of CPU."""
    began, spent = time.monotonic(), time.process_time()
    bound = asyncio.Semaphore(at_once)
    async with openai.AsyncOpenAI(base_url=base_url, api_key="simulated") as client:

        async def bounded(number: int) -> None:
            async with bound:
                await run(client, number)

        await asyncio.gather(*map(bounded, range(runs)))
    print(time.monotonic() - began, time.process_time() - spent)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
