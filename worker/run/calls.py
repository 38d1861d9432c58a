"""The tool calls of a step: each open one gets an output, run now, found in the ledger, or said to be missing."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tools.context import ToolContext
from tools.outcome import Outcome, error_output
from tools.registry import Tool
from worker.crashpoints import reach
from worker.errors import ProviderError
from worker.response import Answer, Asked
from worker.run.pace import Pace
from worker.store import deciding, ledger, settling
from worker.store.ledger import OpenCall

_MOST_STARTS = 3
_IN_DOUBT = ("in_doubt", "the call was interrupted; it may or may not have taken effect")
_UNAPPROVED = ("approval_expired", "nobody approved the call in time; it did not run")
_CANCELLED = ("cancelled", "the call was cancelled together with its run")
NEVER_RAN = ("cancelled", "the run that asked for this call ended before it had a result")


class _End(NamedTuple):
    status: str
    output: str
    error: str | None
    detail: str


class Asking(Exception):
    """A person is asked: the run goes on when it has an answer."""


class Calls:
    """Answers the open calls of a run's thread, once."""

    def __init__(self, pace: Pace, asked: Sequence[Asked] = ()) -> None:
        """Prepare; `asked` are the calls of a step that this runner has just settled: no others are open then."""
        self._pace = pace
        self._asked = asked
        self._claim = pace.claim
        self._parts = pace.parts
        self._allowed: list[str] = pace.claim.config.get("tools", [])
        self._functions: dict[OpenCall, asyncio.Task[Outcome]] = {}
        self._ending: asyncio.Task[None] | None = None
        self.continues = False
        """Whether calls of the run itself are among those that were answered."""

    def tools(self) -> list[Tool]:
        """Return the assistant's tools; raises ProviderError where this worker has not loaded one of them.

        That may pass: while a new version is rolled out, another worker has it.
        """
        loaded = {name: self._parts.registry.get(name) for name in self._allowed}
        missing = sorted(name for name, tool in loaded.items() if tool is None)
        if missing:
            hint = "is its module in RUNWRIGHT_TOOL_MODULES of this worker?"
            told = f"the assistant's tool {missing[0]!r} is not loaded; {hint}"
            raise ProviderError("missing_tool", told, transient=True)
        return [tool for tool in loaded.values() if tool is not None]

    async def answers(self) -> list[Answer]:
        """Return an output for every open call of the thread, running side by side those that have none yet.

        Raises Asking where a person has to answer first; what needs no answer has run by then.
        """
        await self._pace.until_leased()
        calls = await self._open()
        self.continues = any(call.run_id == self._claim.run_id for call in calls)
        asking = [call for call in calls if self._is_asking(call)]
        ready = [call for call in calls if call not in asking and self._must_run(call)]
        for question in ("approval", "in_doubt"):
            await self._ask([call for call in asking if self._question(call) == question], question)
        outputs = await self._run_all(ready)
        doubtful = [call for call, output in outputs.items() if output is None]
        await self._ask(doubtful, "in_doubt")
        for call in calls:  # before the park: an expired question that stayed undecided would make the run due at once
            if call.output is None and call not in outputs and call not in asking:
                outputs[call] = await self._write_off(call)
        if asking or doubtful:
            self._pace.heed()
            raise Asking
        return [
            Answer(call.call_id, outputs.get(call) or call.output or "", call.name, call.arguments) for call in calls
        ]

    async def earlier(self) -> Sequence[Answer]:
        """Return what a step that has to go on from one that was held, and is not any more, cannot know of there."""
        return await self._parts.store.read(ledger.answered, self._claim.run_id) if self.continues else ()

    async def _open(self) -> list[OpenCall]:
        """Return the open calls of the thread, from the ledger unless they are known."""
        if not self._asked:
            return await self._parts.store.read(ledger.still_open, self._claim.thread_id)
        run_id = self._claim.run_id
        return [OpenCall(run_id, one.call_id, one.name, one.arguments, "asked", None, 0) for one in self._asked]

    # ── who decides ───────────────────────────────────────────────────────────────────────────────────────────────

    def _question(self, call: OpenCall) -> str | None:
        """Return what a person is asked before this call can be answered, None where nobody needs to be."""
        if call.run_id != self._claim.run_id or call.output is not None:
            return None
        if call.status == "asked":
            return "approval" if self._needs_approval(call.name) else None
        return "in_doubt" if self._parts.settings.in_doubt == "ask" and not self._repeatable(call) else None

    def _is_asking(self, call: OpenCall) -> bool:
        """Tell whether the call waits for a person: nobody has answered this question, and it has not expired."""
        question = self._question(call)
        return question is not None and (call.question != question or not (call.decision or call.overdue))

    def _needs_approval(self, name: str) -> bool:
        tool = self._parts.registry.get(name)
        if tool is None or name not in self._allowed:  # it will be refused in any case
            return False
        return tool.approval or name in self._claim.config.get("approval", ())

    def _must_run(self, call: OpenCall) -> bool:
        """A call that nobody began runs, once approved; one that was interrupted only where that is safe."""
        if call.run_id != self._claim.run_id or call.output is not None:
            return False
        if call.status == "asked":
            return call.decision == "approved" or not self._needs_approval(call.name)
        return self._repeatable(call)

    def _repeatable(self, call: OpenCall) -> bool:
        """Tell whether the tool may run again; not for ever, as one that takes its process down would take them all."""
        tool = self._parts.registry.get(call.name)
        return tool is not None and tool.effect != "once" and call.starts < _MOST_STARTS

    async def _ask(self, calls: Sequence[OpenCall], question: str) -> None:
        ids = [call.call_id for call in calls if call.question != question]
        if ids:
            await self._pace.write(deciding.ask, ids, question, self._parts.settings.approval_timeout)
            self._pace.emit("run.asks", question=question, tools=[call.name for call in calls])

    # ── run ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _run_all(self, calls: Sequence[OpenCall]) -> dict[OpenCall, str | None]:
        """Run the calls side by side; the output is None where a person has to say what a call has come to.

        A cancel of the run ends the calls that can be ended and waits for the others.
        """
        if not calls:
            return {}
        started = await self._pace.write(ledger.start, [call.call_id for call in calls])
        calls = [call for call in calls if call.call_id in started]
        tasks = {call: asyncio.create_task(self._run(call), name=f"call-{call.call_id}") for call in calls}
        try:
            with self._pace.held.heard_by(self._told):
                self._told()  # of a cancel that came while the start was committed
                outputs = await asyncio.gather(*tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
        return dict(zip(calls, outputs, strict=True))

    def _told(self) -> None:
        """Heed a cancel; where the worker stops, calls have its grace."""
        if self._pace.held.cancel and self._ending is None:
            self._ending = asyncio.create_task(self._end_functions())
            self._ending.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _end_functions(self) -> None:
        """End the functions that can be ended, never the task that stores what they have come to."""
        await self._pace.write(settling.start_cancelling)
        for call, function in self._functions.items():
            if self._parts.executor.stoppable(call.name):
                function.cancel()

    async def _run(self, call: OpenCall) -> str | None:
        began = asyncio.get_running_loop().time()
        end = await self._carry_out(call)
        if end is None:
            return None
        await self._pace.write(ledger.finish, call.call_id, status=end.status, output=end.output, error=end.error)
        seconds = round(asyncio.get_running_loop().time() - began, 3)
        told = {"tool": call.name, "call_id": call.call_id, "error": end.error, "detail": end.detail}
        self._pace.emit("tool.finished", **told, seconds=seconds)
        return end.output

    async def _carry_out(self, call: OpenCall) -> _End | None:
        """Run one call; None where it is in doubt and a person is to be asked."""
        executor = self._parts.executor
        reach("outside.tool.before")
        work = executor.call(call.name, call.arguments, self._context(call), self._allowed)
        self._functions[call] = function = asyncio.create_task(work, name=f"tool-{call.call_id}")
        try:
            outcome = await function
        except asyncio.CancelledError:
            if not (self._pace.held.cancel and function.cancelled()):
                raise
            kind, message = _IN_DOUBT if self._once(call) else _CANCELLED
            return _End("failed", error_output(kind, message), kind, "cancelled")
        reach("outside.tool.after")
        if outcome.error == "timeout" and outcome.began and self._once(call):
            doubt = _End(outcome.status, error_output(*_IN_DOUBT), "in_doubt", outcome.detail)
            return None if self._parts.settings.in_doubt == "ask" else doubt
        return _End(outcome.status, outcome.output, outcome.error, outcome.detail)

    def _context(self, call: OpenCall) -> ToolContext:
        claim = self._claim
        return ToolContext(
            run_id=claim.run_id,
            thread_id=claim.thread_id,
            call_id=call.call_id,
            attempt=claim.attempt,
            deadline=datetime.now(UTC) + timedelta(seconds=self._pace.seconds_left()),
            metadata=claim.metadata,
            data=self._parts.settings.tool_data,
        )

    def _once(self, call: OpenCall) -> bool:
        tool = self._parts.registry.get(call.name)
        return tool is not None and tool.effect == "once"

    async def _write_off(self, call: OpenCall) -> str:
        kind, message = _IN_DOUBT if call.status == "running" else NEVER_RAN
        if call.question == "approval" and call.status == "asked":
            kind, message = _UNAPPROVED
        output = error_output(kind, message)
        await self._pace.write(ledger.write_off, call, output, kind)
        self._pace.emit("tool.finished", tool=call.name, call_id=call.call_id, error=kind)
        return output
