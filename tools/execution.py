"""Carrying out a tool call: checked, limited in time, answered whatever happens."""

import asyncio
from collections.abc import Collection
from functools import partial
from time import monotonic
from typing import Any

import structlog
from pydantic import ValidationError

from tools.context import ToolContext
from tools.isolation import Isolation
from tools.outcome import Outcome, evaluate, evaluate_async, never_began, raised, refused, timed_out, unfitting
from tools.pool import Threads
from tools.registry import Registry, Tool

_log = structlog.get_logger(__name__)


class Executor:
    """Calls the tools of a registry; belongs to one event loop."""

    def __init__(
        self,
        registry: Registry,
        *,
        threads: int = 16,
        processes: int = 4,
        timeout: float = 60.0,
        output_limit: int = 200_000,
    ) -> None:
        """Bound what runs at once; `timeout` (seconds) is for tools without their own, `output_limit` in characters."""
        self._registry = registry
        self._threads: Threads[Outcome] = Threads(threads)
        self._isolation = Isolation(processes, output_limit)
        self._timeout = timeout
        self._output_limit = output_limit
        self._stuck: set[asyncio.Future[Outcome]] = set()

    @property
    def stuck(self) -> int:
        """How many calls were given up and have not ended yet."""
        return len(self._stuck)

    def stoppable(self, name: str) -> bool:
        """Tell whether cancelling a call of this tool ends it: a plain function goes on in its thread."""
        tool = self._registry.get(name)
        return tool is not None and (tool.is_async or tool.isolate)

    async def call(self, name: str, arguments: str, context: ToolContext, allowed: Collection[str]) -> Outcome:
        """Call a tool with the model's JSON; what the tool or the model did wrong is in the outcome, never raised.

        Cancelling the caller ends a stoppable call at once; a plain function is left behind and counted as stuck.
        """
        tool = self._registry.get(name)
        if tool is None or name not in allowed:
            return refused(name, allowed, known=tool is not None)
        try:
            values = tool.values(arguments, context)
        except ValidationError as error:
            return unfitting(error)
        except Exception as error:  # noqa: BLE001 a tool's own validator may raise anything
            return raised(error, began=False)
        return await self._carry_out(tool, arguments, values, context)

    async def close(self) -> None:
        """Name the number of calls that are left behind; waits for none of them."""
        self._threads.close()
        if self._stuck:
            _log.warning("tools_left_running", calls=self.stuck)

    async def _carry_out(self, tool: Tool, arguments: str, values: dict[str, Any], context: ToolContext) -> Outcome:
        if not context.remaining():
            return never_began(tool, "the deadline had passed")
        if tool.isolate:
            return await self._isolation.call(tool, arguments, context, tool.timeout or self._timeout)
        if tool.is_async:
            return await self._on_loop(tool, values, context)
        return await self._in_thread(tool, values, context)

    async def _on_loop(self, tool: Tool, values: dict[str, Any], context: ToolContext) -> Outcome:
        task = asyncio.create_task(evaluate_async(tool, values, self._output_limit), name=f"tool-{tool.name}")
        return await self._limited(tool, task, context)

    async def _in_thread(self, tool: Tool, values: dict[str, Any], context: ToolContext) -> Outcome:
        try:
            async with asyncio.timeout(context.remaining()):
                await self._threads.place()
        except TimeoutError:
            return never_began(tool, "no thread became free")
        work = partial(evaluate, tool, values, self._output_limit)
        return await self._limited(tool, self._threads.start(work, f"tool-{tool.name}"), context)

    async def _limited(self, tool: Tool, future: asyncio.Future[Outcome], context: ToolContext) -> Outcome:
        """Wait for a call that has begun, as long as its limit and the run's deadline allow."""
        seconds = min(tool.timeout or self._timeout, context.remaining())
        try:
            await asyncio.wait({future}, timeout=seconds)
        except asyncio.CancelledError:
            self._give_up(tool, future, context)
            raise
        if future.cancelled():
            return raised(asyncio.CancelledError("the tool cancelled itself"))
        if future.done():
            return future.result()
        self._give_up(tool, future, context)
        return timed_out(tool, seconds)

    def _give_up(self, tool: Tool, future: asyncio.Future[Outcome], context: ToolContext) -> None:
        """Count a call until it ends; its result is dropped."""
        if isinstance(future, asyncio.Task):
            future.cancel()
        self._stuck.add(future)
        future.add_done_callback(partial(self._ended_late, tool.name, context, monotonic()))

    def _ended_late(self, name: str, context: ToolContext, since: float, future: asyncio.Future[Outcome]) -> None:
        self._stuck.discard(future)
        if not future.cancelled():
            late = round(monotonic() - since, 3)
            _log.warning(
                "tool_ended_late", tool=name, run_id=context.run_id, call_id=context.call_id, late_seconds=late
            )
