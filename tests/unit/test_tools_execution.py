"""Calls on the loop and in threads: answered whatever happens, limited in time, side by side."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

import pytest
from pydantic import BaseModel, field_validator
from structlog.testing import capture_logs

from tools.context import ToolContext
from tools.execution import Executor
from tools.outcome import Outcome
from tools.registry import Registry, Tool, tool, tool_of

ROOT = Path(__file__).parents[2]


def executor(*functions: Callable[..., object], **limits: Any) -> Executor:
    return Executor(Registry(made(function) for function in functions), **limits)


def made(function: Callable[..., object]) -> Tool:
    found = tool_of(function)
    assert found is not None
    return found


def context(seconds: float = 30) -> ToolContext:
    deadline = datetime.now(UTC) + timedelta(seconds=seconds)
    return ToolContext("run-1", "thread-1", "call-1", 1, deadline, {"team": "red"}, Path())


def call(function: Callable[..., object], arguments: str = "{}", **limits: Any) -> Outcome:
    """Call one tool on a loop of its own."""

    async def main() -> Outcome:
        return await executor(function, **limits).call(made(function).name, arguments, context(), {made(function).name})

    return run(main())


def run(main: Coroutine[Any, Any, Outcome]) -> Outcome:
    return asyncio.run(main)


@tool
def add(left: int, right: int, context: ToolContext) -> dict[str, object]:
    """Add."""
    return {"sum": left + right, "for": context.run_id}


@tool
async def add_later(left: int, right: int) -> int:
    """Add on the loop."""
    return left + right


def test_a_plain_and_an_async_tool() -> None:
    """Expected: arguments are converted, the context is injected, the result is JSON."""
    assert call(add, '{"left": 2, "right": "3"}') == Outcome('{"sum":5,"for":"run-1"}', "completed")
    assert call(add_later, '{"left": 2, "right": 3}') == Outcome("5", "completed")


class Receipt(BaseModel):
    total: Decimal
    on: date


@dataclass
class Place:
    x: float


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain text", "plain text"),
        (None, "null"),
        (Receipt(total=Decimal("1.10"), on=date(2026, 3, 1)), '{"total":"1.10","on":"2026-03-01"}'),
        ([Place(1.5), {"ä": 1}], '[{"x":1.5},{"ä":1}]'),
        (float("nan"), '"NaN"'),
        ("a\0b\ud800", "a�b?"),
    ],
)
def test_results_become_text(value: object, expected: str) -> None:
    """Expected: strings stay, the rest is valid JSON, and nothing that a database refuses is left."""

    @tool
    def give() -> object:
        """Give."""
        return value

    assert call(give).output == expected


def test_a_long_result_is_cut_and_says_so() -> None:
    """Expected: the first part and how long the whole was."""

    @tool
    def talk() -> str:
        """Talk."""
        return "x" * 500

    assert call(talk, output_limit=100).output == "x" * 100 + (
        "\n[cut here: the output had 500 characters, the limit is 100]"
    )


def test_a_tool_that_is_not_given_reads_like_one_that_is_not_there() -> None:
    """Expected: the same words to the model, different ones for our records, and nothing is called."""

    async def main() -> tuple[Outcome, Outcome]:
        both = executor(add, add_later)
        return (
            await both.call("add_later", '{"left": 1, "right": 1}', context(), {"add"}),
            await both.call("add_lat", "{}", context(), {"add"}),
        )

    kept_back, unknown = asyncio.run(main())

    assert (kept_back.error, unknown.error) == ("not_allowed", "unknown_tool")
    assert kept_back.output.replace("add_later", "add_lat") == unknown.output
    assert '"type": "unknown_tool"' in unknown.output
    assert 'The tools are: add"' in unknown.output
    assert not kept_back.began
    assert not unknown.began


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("not json", "Invalid JSON"),
        ("[1, 2]", "should be an object"),
        ('{"left": 1}', "right: Field required"),
        ('{"left": 1, "right": "secret"}', "right: Input should be a valid integer"),
        ('{"left": 1, "right": 2, "secret": 3}', "secret: Extra inputs"),
        ('{"left": 1, "right": 2, "context": {}}', "context: Extra inputs"),
        ("[" * 10_000, "Invalid JSON"),
    ],
)
def test_arguments_that_do_not_fit(arguments: str, problem: str) -> None:
    """Expected: the model reads what is wrong; the log's word holds nothing that the model wrote."""
    outcome = call(add, arguments)

    assert (outcome.status, outcome.error, outcome.began) == ("failed", "bad_arguments", False)
    assert problem in outcome.output
    assert "secret" not in outcome.detail


def test_exceptions_are_told_without_a_traceback() -> None:
    """Expected: type and message to the model; type, file and line, but no message, to the logs."""

    @tool
    def fail(word: str) -> NoReturn:
        """Fail."""
        raise LookupError(f"no {word} here")

    outcome = call(fail, '{"word": "tomato"}')

    assert outcome.output == '{"error": {"type": "exception", "message": "LookupError: no tomato here"}}'
    assert outcome.detail.startswith("LookupError at test_tools_execution.py:")
    assert "tomato" not in outcome.detail
    assert (outcome.error, outcome.began) == ("exception", True)


class Moody(BaseModel):
    mood: str

    @field_validator("mood")
    @classmethod
    def check(cls, mood: str) -> str:
        raise RuntimeError("validator broke")


def leave() -> NoReturn:
    raise SystemExit(3)


@tool
async def exit_async() -> None:
    """Exit."""
    leave()


@tool
def exit_sync() -> None:
    """Exit."""
    leave()


@tool
def unserialisable() -> object:
    """Return what JSON cannot say."""
    return object()


@tool
async def cancels_itself() -> None:
    """Cancel."""
    raise asyncio.CancelledError


@tool
def moody(argument: Moody) -> str:
    """Never get here."""
    return argument.mood


@tool
def stops() -> None:
    """Raise what a future cannot hold."""
    raise StopIteration


@pytest.mark.parametrize(
    ("function", "arguments", "problem"),
    [
        (exit_async, "{}", "SystemExit: 3"),
        (exit_sync, "{}", "SystemExit: 3"),
        (unserialisable, "{}", "Unable to serialize unknown type"),
        (cancels_itself, "{}", "CancelledError"),
        (moody, '{"argument": {"mood": "low"}}', "validator broke"),
        (stops, "{}", "StopIteration"),
    ],
)
def test_whatever_a_tool_does_is_an_answer(function: Callable[..., object], arguments: str, problem: str) -> None:
    """Expected: an error output of type exception; the loop and the worker live on."""
    outcome = call(function, arguments)

    assert outcome.error == "exception"
    assert problem in outcome.output


def test_plain_tools_run_side_by_side() -> None:
    """Expected: three calls that wait for each other all complete."""
    barrier = threading.Barrier(3, timeout=5)

    @tool
    def meet() -> str:
        """Meet."""
        barrier.wait()
        return "met"

    async def main() -> list[Outcome]:
        three = executor(meet, threads=3)
        return await asyncio.gather(*(three.call("meet", "{}", context(), {"meet"}) for _ in range(3)))

    assert [outcome.output for outcome in asyncio.run(main())] == ["met"] * 3


def test_async_tools_run_side_by_side() -> None:
    """Expected: the same on the loop."""

    async def main() -> list[Outcome]:
        barrier = asyncio.Barrier(3)

        @tool(timeout=5)
        async def meet() -> str:
            """Meet."""
            await barrier.wait()
            return "met"

        three = executor(meet)
        return await asyncio.gather(*(three.call("meet", "{}", context(), {"meet"}) for _ in range(3)))

    assert [outcome.output for outcome in asyncio.run(main())] == ["met"] * 3


def test_a_timed_out_plain_tool_is_counted_until_it_ends() -> None:
    """Expected: an error at the limit, one stuck call as long as its thread lives, its result logged as late."""
    release = threading.Event()

    @tool(timeout=0.05)
    def hang() -> str:
        """Hang."""
        release.wait(10)
        return "too late"

    async def main() -> Outcome:
        small = executor(hang, add_later, add, threads=1)
        outcome = await small.call("hang", "{}", context(), {"hang"})
        assert small.stuck == 1
        release.set()
        # The only thread is free again when the stuck one has ended: this call waits for exactly that.
        after = await small.call("add", '{"left": 1, "right": 1}', context(), {"add"})
        assert after.status == "completed"
        assert small.stuck == 0
        return outcome

    with capture_logs() as logs:
        outcome = run(main())

    assert (outcome.error, outcome.began) == ("timeout", True)
    assert "hang did not finish within 0.05 seconds" in outcome.output
    assert [(log["event"], log["tool"], log["call_id"]) for log in logs] == [("tool_ended_late", "hang", "call-1")]


def test_an_async_tool_is_cancelled_at_its_limit() -> None:
    """Expected: a timeout, and the tool saw the cancellation."""
    seen: list[str] = []

    @tool(timeout=0.05)
    async def hang() -> None:
        """Hang."""
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cancelled")

    outcome = call(hang)

    assert outcome.error == "timeout"
    assert seen == ["cancelled"]


def test_an_async_tool_that_will_not_be_cancelled_does_not_hold_its_run() -> None:
    """Expected: the timeout is told at once, and the call counts as stuck until it ends."""

    async def main() -> Outcome:
        release = asyncio.Event()

        @tool(timeout=0.05)
        async def stubborn() -> None:
            """Hang on."""
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await release.wait()

        one = executor(stubborn)
        outcome = await one.call("stubborn", "{}", context(), {"stubborn"})
        assert one.stuck == 1
        release.set()
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "tool-stubborn"))
        assert one.stuck == 0
        return outcome

    assert run(main()).error == "timeout"


def test_a_tools_own_timeout_error_is_an_exception() -> None:
    """Expected: only our limit is called a timeout."""

    @tool
    async def give_up() -> NoReturn:
        """Give up."""
        raise TimeoutError("the shop does not answer")

    assert call(give_up).error == "exception"


def test_the_limit_counts_from_the_start_of_the_function() -> None:
    """Expected: a call that waits for a thread longer than its limit still completes."""
    release = threading.Event()

    @tool
    def hold() -> None:
        """Hold the thread."""
        release.wait(10)

    @tool(timeout=0.1)
    def quick() -> str:
        """Be quick."""
        return "done"

    async def main() -> Outcome:
        one = executor(hold, quick, threads=1)
        holding = asyncio.create_task(one.call("hold", "{}", context(), {"hold"}))
        asyncio.get_running_loop().call_later(0.3, release.set)
        outcome = await one.call("quick", "{}", context(), {"quick"})
        await holding
        return outcome

    assert run(main()).output == "done"


@pytest.mark.parametrize("seconds", [0.1, -1])
def test_waiting_for_a_thread_ends_at_the_deadline(seconds: float) -> None:
    """Expected: a timeout of a call that never began, while the first call goes on."""
    release = threading.Event()

    @tool
    def hold() -> None:
        """Hold the thread."""
        release.wait(10)

    async def main() -> Outcome:
        one = executor(hold, threads=1)
        holding = asyncio.create_task(one.call("hold", "{}", context(), {"hold"}))
        await asyncio.sleep(0)
        outcome = await one.call("hold", "{}", context(seconds), {"hold"})
        release.set()
        assert (await holding).status == "completed"
        return outcome

    outcome = run(main())

    assert (outcome.error, outcome.began) == ("timeout", False)


def test_the_deadline_cuts_a_limit_short() -> None:
    """Expected: a call ends at its run's deadline, not at the later limit of its own."""

    @tool(timeout=60)
    async def hang() -> None:
        """Hang."""
        await asyncio.Event().wait()

    async def main() -> Outcome:
        return await executor(hang).call("hang", "{}", context(0.1), {"hang"})

    assert run(main()).error == "timeout"


def test_cancelling_the_caller_passes_through() -> None:
    """Expected: the caller gets its CancelledError; an async tool is cancelled, a plain one counted as stuck."""
    release, begun = threading.Event(), threading.Event()

    @tool
    def hold() -> None:
        """Hold."""
        begun.set()
        release.wait(10)

    async def main() -> int:
        one = executor(hold)
        caller = asyncio.create_task(one.call("hold", "{}", context(), {"hold"}))
        await asyncio.to_thread(begun.wait, 5)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        stuck = one.stuck
        with capture_logs() as logs:
            await one.close()
        assert [log["event"] for log in logs] == ["tools_left_running"]
        release.set()
        return stuck

    assert asyncio.run(main()) == 1


def test_cancelling_the_caller_stops_an_async_tool() -> None:
    """Expected: the tool sees the cancellation and ends; nothing stays stuck, nothing is logged as late."""
    seen: list[str] = []

    async def main() -> int:
        begun = asyncio.Event()

        @tool
        async def wait() -> None:
            """Wait."""
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                seen.append("cancelled")

        one = executor(wait, add)
        assert (one.stoppable("wait"), one.stoppable("add"), one.stoppable("nope")) == (True, False, False)
        caller = asyncio.create_task(one.call("wait", "{}", context(), {"wait"}))
        await begun.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        tools = (task for task in asyncio.all_tasks() if task.get_name() == "tool-wait")
        await asyncio.gather(*tools, return_exceptions=True)
        await asyncio.sleep(0)  # what the task calls back when it has ended
        return one.stuck

    with capture_logs() as logs:
        assert asyncio.run(main()) == 0
    assert (seen, logs) == (["cancelled"], [])


def test_a_call_that_is_cancelled_while_it_waits_for_a_thread_takes_none() -> None:
    """Expected: the only thread goes to the next that waits, and the cancelled call never begins."""
    release = threading.Event()
    ran: list[str] = []

    @tool
    def hold(name: str) -> str:
        """Hold the thread."""
        ran.append(name)
        release.wait(10)
        return name

    async def main() -> list[Outcome | BaseException]:
        one = executor(hold, threads=1)
        three = [
            asyncio.create_task(one.call("hold", f'{{"name": "{name}"}}', context(), {"hold"}))
            for name in ("first", "cancelled", "last")
        ]
        await asyncio.sleep(0)
        three[1].cancel()
        release.set()
        return await asyncio.gather(*three, return_exceptions=True)

    first, cancelled, last = asyncio.run(main())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert isinstance(first, Outcome)
    assert isinstance(last, Outcome)
    assert (ran, first.output, last.output) == (["first", "last"], "first", "last")


def test_a_stuck_tool_does_not_hold_the_interpreter() -> None:
    """Expected: a process with a stuck plain tool ends by itself."""
    program = """
import asyncio, threading, pathlib
from datetime import UTC, datetime
from tools.context import ToolContext
from tools.execution import Executor
from tools.registry import Registry, tool, tool_of
@tool(timeout=0.05)
def hang() -> None:
    "Hang."
    threading.Event().wait()
async def main():
    context = ToolContext("r", "t", "c", 1, datetime.max.replace(tzinfo=UTC), {}, pathlib.Path())
    print((await Executor(Registry([tool_of(hang)])).call("hang", "{}", context, {"hang"})).error)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )

    assert done.stdout == "timeout\n"
