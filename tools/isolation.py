"""The parent's side of `@tool(isolate=True)`: a child process that is killed, with its whole group, at the limit."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator

from pydantic import TypeAdapter, ValidationError

from tools.context import ToolContext
from tools.outcome import Outcome, failed, never_began, timed_out
from tools.registry import Tool

# The child gets this process's import path; -P keeps the folder it happens to start in out of it.
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from tools.child import main; main()"
_CONTEXT = TypeAdapter(ToolContext)
_OUTCOME = TypeAdapter(Outcome)


class Isolation:
    """Calls tools in child processes, at most `size` at once; only JSON passes between."""

    def __init__(self, size: int, output_limit: int) -> None:
        self._free = asyncio.Semaphore(size)
        self._output_limit = output_limit

    async def call(self, tool: Tool, arguments: str, context: ToolContext, seconds: float) -> Outcome:
        """Call a tool in a child; `seconds` count from when it is ready, and the deadline bounds what is before."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(context.remaining()):
                    await stack.enter_async_context(self._free)
                    child = await stack.enter_async_context(_child())
                    ready = await _hand_over(child, self._request(tool, arguments, context))
            except TimeoutError:
                return never_began(tool, "no child process became ready")
            except OSError as error:
                return _unstarted(tool, f"no child process: {error.strerror}")
            if not ready:
                return _unstarted(tool, "the child ended at its start")
            return await _answer(child, tool, min(seconds, context.remaining()))

    def _request(self, tool: Tool, arguments: str, context: ToolContext) -> bytes:
        request = {
            "module": tool.function.__module__,
            "function": tool.function.__qualname__,
            "arguments": arguments,
            "context": _CONTEXT.dump_python(context, mode="json"),
            "output_limit": self._output_limit,
        }
        return json.dumps(request).encode() + b"\n"


@contextlib.asynccontextmanager
async def _child() -> AsyncIterator[Process]:
    command = [sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path)]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, start_new_session=True)
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _hand_over(child: Process, request: bytes) -> bool:
    """Send the request; True when the child says that it is about to call the function."""
    assert child.stdin is not None  # noqa: S101 opened above
    assert child.stdout is not None  # noqa: S101 opened above
    with contextlib.suppress(ConnectionError):
        child.stdin.write(request)
        await child.stdin.drain()
    return await child.stdout.read(1) == b"\n"


async def _answer(child: Process, tool: Tool, seconds: float) -> Outcome:
    assert child.stdout is not None  # noqa: S101 opened above
    try:
        async with asyncio.timeout(seconds):
            return _OUTCOME.validate_json(await child.stdout.read())
    except TimeoutError:
        return timed_out(tool, seconds)
    except ValidationError:
        return failed("exception", f"the process of {tool.name} ended without an answer", "the child died")


def _unstarted(tool: Tool, detail: str) -> Outcome:
    return failed("exception", f"{tool.name} could not be started", detail, began=False)
