"""Tools in a child process: only JSON passes, and a kill is a kill."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tools.context import ToolContext
from tools.execution import Executor
from tools.outcome import Outcome
from tools.registry import Registry

ROOT = Path(__file__).parents[2]
MODULE = "isolated_tools_of_a_test"
SOURCE = '''
"""Isolated tools."""
import asyncio, os, subprocess, sys
from tools.context import ToolContext
from tools.registry import tool

@tool(isolate=True)
def describe(text: str, context: ToolContext) -> dict[str, object]:
    """Say what arrived, and who we are."""
    print("noise on standard output")
    return {"text": text, "run": context.run_id, "team": context.metadata["team"], "pid": os.getpid(),
            "late": context.deadline.tzinfo is None, "stdin": sys.stdin.read()}

@tool(isolate=True)
async def later(text: str) -> str:
    """Answer on a loop of the child's own."""
    await asyncio.sleep(0)
    return text

@tool(isolate=True)
def fail() -> None:
    """Fail."""
    raise ValueError("no luck")

@tool(isolate=True)
def die() -> None:
    """End the process."""
    os._exit(7)

@tool(isolate=True, timeout=0.3)
def hang(fifo: str, pids: str) -> None:
    """Hang, with a child of its own that holds the pipe open."""
    with open(fifo, "wb") as pipe:
        subprocess.Popen(["sleep", "1000"], stdout=pipe)
    with open(pids, "w") as file:
        file.write(str(os.getpid()))
    asyncio.run(asyncio.Event().wait())

@tool(isolate=True, timeout=60)
def hang_on(fifo: str) -> None:
    """Hang without a limit that matters, with a child of its own that holds the pipe open."""
    with open(fifo, "wb") as pipe:
        subprocess.Popen(["sleep", "1000"], stdout=pipe)
        pipe.write(b"up")
        pipe.flush()
        asyncio.run(asyncio.Event().wait())
'''


@pytest.fixture
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Executor]:
    """Tools in a module that the child can import only by this process's path."""
    (tmp_path / f"{MODULE}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield Executor(Registry.load([MODULE]), processes=2)
    sys.modules.pop(MODULE)


def call(executor: Executor, name: str, arguments: str = "{}") -> Outcome:
    context = ToolContext(
        "run-1", "thread-1", "call-1", 1, datetime.now(UTC) + timedelta(seconds=30), {"team": "red"}, ROOT
    )
    return asyncio.run(executor.call(name, arguments, context, {name}))


def children() -> set[int]:
    """Return the processes whose parent is this one."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def test_a_call_in_a_child(executor: Executor) -> None:
    """Expected: arguments and context arrive, prints and an open standard input do no harm, the process is another."""
    outcome = call(executor, "describe", '{"text": "Käse \\u0000"}')

    assert outcome.status == "completed", outcome
    assert '"text":"Käse \\u0000","run":"run-1","team":"red"' in outcome.output
    assert outcome.output.endswith('"late":false,"stdin":""}')
    assert f'"pid":{os.getpid()},' not in outcome.output


def test_an_async_tool_in_a_child(executor: Executor) -> None:
    """Expected: it runs there as well."""
    assert call(executor, "later", '{"text": "soon"}').output == "soon"


def test_a_loop_outside_the_main_thread(executor: Executor) -> None:
    """Expected: it works there too, which is where a worker's loop runs."""
    with ThreadPoolExecutor(1) as thread:
        outcome = thread.submit(call, executor, "later", '{"text": "soon"}').result(30)

    assert outcome.output == "soon"


def test_an_exception_in_a_child(executor: Executor) -> None:
    """Expected: the same outcome as without isolation."""
    outcome = call(executor, "fail")

    assert outcome.output == '{"error": {"type": "exception", "message": "ValueError: no luck"}}'
    assert outcome.detail.startswith(f"ValueError at {MODULE}.py:")


def test_a_child_that_dies(executor: Executor) -> None:
    """Expected: an error that says so, of a call that began."""
    outcome = call(executor, "die")

    assert "ended without an answer" in outcome.output
    assert (outcome.error, outcome.began) == ("exception", True)


def test_a_child_that_cannot_start(executor: Executor, tmp_path: Path) -> None:
    """Expected: an error of a call that never began."""
    (tmp_path / f"{MODULE}.py").write_text("raise SystemExit(1)")

    outcome = call(executor, "fail")

    assert "could not be started" in outcome.output
    assert (outcome.error, outcome.began) == ("exception", False)


def test_bad_arguments_start_no_child(executor: Executor) -> None:
    """Expected: refused here, before any process."""
    assert call(executor, "later", '{"text": 1}').error == "bad_arguments"


def test_the_limit_kills_the_child_and_its_children(executor: Executor, tmp_path: Path) -> None:
    """Expected: a timeout; the process is gone, and the pipe that its own child held open has ended."""
    fifo, pids = tmp_path / "pipe", tmp_path / "pid"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    outcome = call(executor, "hang", f'{{"fifo": "{fifo}", "pids": "{pids}"}}')

    assert (outcome.error, outcome.began) == ("timeout", True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pids.read_text()), 0)
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""
    os.close(reader)


@pytest.mark.usefixtures("executor")
def test_cancelling_the_caller_kills_the_child_and_its_children(tmp_path: Path) -> None:
    """Expected: the caller gets its CancelledError, the pipe that both held open has ended, the only place is free."""
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)

    async def main() -> Outcome:
        one = Executor(Registry.load([MODULE]), processes=1)
        assert one.stoppable("hang_on")
        context = ToolContext("r", "t", "c", 1, datetime.now(UTC) + timedelta(seconds=30), {}, ROOT)
        caller = asyncio.create_task(one.call("hang_on", f'{{"fifo": "{fifo}"}}', context, {"hang_on"}))
        pipe = await asyncio.to_thread(fifo.open, "rb")
        assert await asyncio.to_thread(pipe.read, 2) == b"up"
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert await asyncio.to_thread(pipe.read) == b""
        pipe.close()
        return await one.call("later", '{"text": "soon"}', context, {"later"})

    assert asyncio.run(main()).output == "soon"


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8, 13])
def test_a_call_that_is_cancelled_while_its_child_starts_leaves_none(executor: Executor, turns: int) -> None:
    """Expected: whichever turn of the loop the cancel comes at, no process of ours is left when it has come through."""

    async def main() -> None:
        context = ToolContext("r", "t", "c", 1, datetime.now(UTC) + timedelta(seconds=30), {}, ROOT)
        caller = asyncio.create_task(executor.call("later", '{"text": "soon"}', context, {"later"}))
        for _ in range(turns):
            await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

    before = children()
    asyncio.run(main())
    assert children() <= before


def test_a_child_does_not_outlive_a_killed_parent(executor: Executor, tmp_path: Path) -> None:
    """Expected: after SIGKILL of the parent the pipe that the child held open ends by itself."""
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    program = f"""
import asyncio, pathlib
from datetime import UTC, datetime
from tools.context import ToolContext
from tools.execution import Executor
from tools.registry import Registry
context = ToolContext("r", "t", "c", 1, datetime.max.replace(tzinfo=UTC), {{}}, pathlib.Path())
asyncio.run(Executor(Registry.load(["{MODULE}"])).call("hang_on", '{{"fifo": "{fifo}"}}', context, {{"hang_on"}}))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment)
    with fifo.open("rb") as pipe:
        assert pipe.read(2) == b"up"
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)

        assert pipe.read() == b""


def test_children_are_bounded(executor: Executor, tmp_path: Path) -> None:
    """Expected: with both places taken a third call waits, and ends at its deadline without having begun."""
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)

    async def main() -> Outcome:
        now = datetime.now(UTC)
        long, short = (
            ToolContext("r", "t", "c", 1, now + timedelta(seconds=seconds), {}, ROOT) for seconds in (30, 0.5)
        )
        arguments = f'{{"fifo": "{fifo}"}}'
        two = [asyncio.create_task(executor.call("hang_on", arguments, long, {"hang_on"})) for _ in range(2)]
        await asyncio.sleep(0)
        third = await executor.call("later", '{"text": "a"}', short, {"later"})
        for one in two:
            one.cancel()
        await asyncio.wait(two)
        return third

    outcome = asyncio.run(main())

    assert (outcome.error, outcome.began) == ("timeout", False)
