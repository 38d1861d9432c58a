"""The child's side of `@tool(isolate=True)`: one call read from standard input, its outcome written to standard output.

The parent keeps the child's standard input open: its end means that the parent is gone, and ends the child's group.
"""

import asyncio
import importlib
import json
import os
import signal
import threading
from functools import reduce
from typing import IO, Any

from pydantic import TypeAdapter

from tools.context import ToolContext
from tools.outcome import Outcome, evaluate, evaluate_async
from tools.registry import Tool, tool_of


def main() -> None:
    """Carry out the one call, then end at once, whatever the tool left running."""
    requests, answers = _claim_pipes()
    request = json.loads(requests.readline())
    threading.Thread(target=_end_with_parent, args=(requests,), daemon=True).start()
    tool = _find(request["module"], request["function"])
    values = tool.values(request["arguments"], TypeAdapter(ToolContext).validate_python(request["context"]))
    answers.write(b"\n")
    answers.flush()
    answers.write(TypeAdapter(Outcome).dump_json(_call(tool, values, request["output_limit"])))
    answers.flush()
    os._exit(0)


def _claim_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Take both pipes for ourselves: what the tool prints goes to standard error, what it reads is empty."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.dup2(2, 1)
    return requests, answers


def _end_with_parent(requests: IO[bytes]) -> None:
    requests.read()
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _find(module: str, function: str) -> Tool:
    found = tool_of(reduce(getattr, function.split("."), importlib.import_module(module)))
    if found is None:
        raise LookupError(f"{module}.{function} is not a tool")
    return found


def _call(tool: Tool, values: dict[str, Any], limit: int) -> Outcome:
    if tool.is_async:
        return asyncio.run(evaluate_async(tool, values, limit))
    return evaluate(tool, values, limit)
