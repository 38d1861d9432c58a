"""The tool calls of a step: each open one gets an output, run now, found in the ledger, or said to be missing."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from time import monotonic

from tools.context import ToolContext
from tools.registry import Tool
from worker.backends.base import Answer
from worker.errors import ProviderError
from worker.parts import Parts
from worker.store import ledger
from worker.store.claiming import Claim
from worker.store.ledger import OpenCall

_MOST_STARTS = 3
_IN_DOUBT = ("in_doubt", "the call was interrupted; it may or may not have taken effect")
_NEVER_RAN = ("cancelled", "the run that asked for this call ended before it had a result")


class Calls:
    """Answers the open calls of a run's thread, once; `ends_at` is the run's limit on the monotonic clock."""

    def __init__(self, claim: Claim, parts: Parts, ends_at: float) -> None:
        self._claim = claim
        self._parts = parts
        self._ends_at = ends_at
        self._allowed: list[str] = claim.config.get("tools", [])
        self.continues = False
        """Whether calls of the run itself are among those that were answered."""

    def tools(self) -> list[Tool]:
        """Return the assistant's tools; raises ProviderError where this worker has not loaded one of them."""
        loaded = {name: self._parts.registry.get(name) for name in self._allowed}
        missing = sorted(name for name, tool in loaded.items() if tool is None)
        if missing:
            hint = "is its module in RUNWRIGHT_TOOL_MODULES of this worker?"
            raise ProviderError("missing_tool", f"the assistant's tool {missing[0]!r} is not loaded; {hint}")
        return [tool for tool in loaded.values() if tool is not None]

    async def answers(self) -> list[Answer]:
        """Return an output for every open call of the thread, running side by side those that have none yet."""
        calls = await self._parts.store.read(ledger.still_open, self._claim.thread_id)
        self.continues = any(call.run_id == self._claim.run_id for call in calls)
        ready = [call for call in calls if self._must_run(call)]
        if ready:
            ids = [call.call_id for call in ready]
            await self._parts.store.write(ledger.start, self._claim, ids)
        outputs = dict(zip(ready, await asyncio.gather(*map(self._run, ready)), strict=True))
        for call in calls:
            if call.output is None and call not in outputs:
                outputs[call] = await self._write_off(call)
        return [Answer(call.call_id, outputs.get(call) or call.output or "") for call in calls]

    def _must_run(self, call: OpenCall) -> bool:
        """A call that nobody began runs; one that was interrupted only where its tool says that this is safe.

        And not for ever: a tool that takes the process down with it would take down one worker after another.
        """
        if call.run_id != self._claim.run_id or call.output is not None:
            return False
        tool = self._parts.registry.get(call.name)
        repeatable = tool is not None and tool.effect != "once" and call.starts < _MOST_STARTS
        return call.status == "asked" or repeatable

    async def _run(self, call: OpenCall) -> str:
        claim = self._claim
        context = ToolContext(
            run_id=claim.run_id,
            thread_id=claim.thread_id,
            call_id=call.call_id,
            attempt=claim.attempt,
            deadline=datetime.now(UTC) + timedelta(seconds=max(0.0, self._ends_at - monotonic())),
            metadata=claim.metadata,
            data=self._parts.settings.tool_data,
        )
        outcome = await self._parts.executor.call(call.name, call.arguments, context, self._allowed)
        output, error = outcome.output, str(outcome.error) if outcome.error else None
        tool = self._parts.registry.get(call.name)
        if error == "timeout" and outcome.began and tool is not None and tool.effect == "once":
            output, error = _error(*_IN_DOUBT), "in_doubt"
        finish = ledger.finish
        await self._parts.store.write(finish, claim, call.call_id, status=outcome.status, output=output, error=error)
        told = {"tool": call.name, "call_id": call.call_id, "error": error, "detail": outcome.detail}
        self._parts.events.emit("tool.finished", claim=claim, **told)
        return output

    async def _write_off(self, call: OpenCall) -> str:
        kind, message = _IN_DOUBT if call.status == "running" else _NEVER_RAN
        output = _error(kind, message)
        await self._parts.store.write(ledger.write_off, self._claim, call, output, kind)
        return output


def _error(kind: str, message: str) -> str:
    return json.dumps({"error": {"type": kind, "message": message}})
