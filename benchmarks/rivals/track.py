"""What the scripts share: they get ready, start when they are told to, and say when each run ended."""

import argparse
import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.provider import MODEL

TEXT = "What is twelve times seven and three? Use your tool."
FUNCTION: dict[str, Any] = {
    "type": "function",
    "name": "calculate",
    "description": "Calculate exactly with + - * / // % **, parentheses, round, min, max, abs and sum.",
    "parameters": {
        "type": "object",
        "properties": {"expression": {"type": "string", "description": "Such as 1240.50 * 1.19"}},
        "required": ["expression"],
        "additionalProperties": False,
    },
    "strict": False,
}
WARM = 10


@dataclass(frozen=True, slots=True)
class Track:
    """Where a rival runs: its folder, the provider, how many runs, requests at once, seconds between looks."""

    folder: Path
    url: str
    runs: int
    requests: int
    pause: float


def asked() -> Track:
    """Return what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("url")
    for name, kind in (("runs", int), ("requests", int), ("pause", float)):
        parser.add_argument(name, type=kind)
    return Track(**vars(parser.parse_args()))


def first(run: str) -> dict[str, Any]:
    """Return the body of a run's first create, but for the conversation."""
    return _body(run, [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": TEXT}]}])


def second(run: str, call_id: str, output: str) -> dict[str, Any]:
    """Return the body of the create that hands the tool's output in."""
    return _body(run, [{"type": "function_call_output", "call_id": call_id, "output": output}])


def _body(run: str, given: list[Any]) -> dict[str, Any]:
    told = {"background": True, "store": True, "metadata": {"run_id": run}}
    return {"model": MODEL, "input": given, "tools": [FUNCTION], **told}


async def race(track: Track, carry: Callable[[str], Awaitable[None]]) -> None:
    """Warm up, wait for the word, carry all runs at once, write down when each ended, and wait to be ended."""
    ends: dict[str, float] = {}

    async def carried(run: str) -> None:
        await carry(run)
        ends[run] = time.time()

    await asyncio.gather(*(carried(f"warm-{number}") for number in range(WARM)))
    ends.clear()
    (track.folder / "ready").touch()
    while not (track.folder / "go").exists():  # noqa: ASYNC110 - a file is all that both sides know
        await asyncio.sleep(0.05)
    await asyncio.gather(*(carried(f"run-{number}") for number in range(track.runs)))
    draft = track.folder / "ends.draft"
    draft.write_text(json.dumps(ends))
    draft.rename(track.folder / "ends.json")
    signal.sigwait({signal.SIGTERM})
