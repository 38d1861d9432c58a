"""SIGTERM: a thousand waiting runs are let go at once, and a tool that runs is given its time, unless told twice."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from tasks import runs
from tasks.runs import RunHandle, RunRequest
from tests.chaos.effects import EXECUTIONS, TOOLS
from tests.nursery import Nursery
from tests.servers import Stack, wait_until
from worker.lifecycle import Status
from worker.models import Attempt, Run
from worker.producer import producer

pytestmark = pytest.mark.parametrize("stack", ["postgresql"], indirect=True, scope="module")

# The whole thousand takes the machine half a minute to create.
WAITING = 1000 if "TEST_CHAOS" in os.environ else 60
# The promise is two seconds; beside the rest of the suite, on a machine that may be slow, it is not to be measured.
LIMIT = 2 if "TEST_CHAOS" in os.environ else 6


@pytest.fixture(autouse=True)
def clerk(stack: Stack, nursery: Nursery) -> Iterator[None]:
    stack.assistant("clerk", tools=TOOLS)
    yield
    nursery.kill_all()


def count(what: object) -> int:
    with producer().database.read() as connection:
        return int(connection.execute(select(func.count()).where(what)).scalar_one())  # type: ignore[arg-type]


def by_run(stack: Stack, handles: list[RunHandle]) -> list[tuple[int, int]]:
    """Return the provider runs and the requests of each run, as the simulator has counted them."""
    counted = stack.simulator.counters()["by_run"]
    return [(counted[handle.id]["provider_runs"], counted[handle.id]["requests"]) for handle in handles]


@pytest.mark.timeout(300)
def test_all_waiting_runs_are_let_go_at_once(stack: Stack, nursery: Nursery) -> None:
    """Nobody owns one any more, and the next worker looks at the very responses that the first had created."""
    env = {**stack.env, "RUNWRIGHT_TOOL_MODULES": "tests.chaos.effects"}
    first = nursery.worker("first", env)
    handles = runs.submit_many(RunRequest(assistant="clerk", input="[[hang]]") for _ in range(WAITING))
    wait_until(lambda: count(Attempt.provider_id.is_not(None)) == WAITING, "all creates", 180)
    began = time.monotonic()
    first.send(signal.SIGTERM)
    wait_until(lambda: count(Run.owner.is_not(None)) == 0, "the release of all runs", 10)
    took = time.monotonic() - began
    assert took < LIMIT, f"{WAITING} runs were let go after {took:.2f} s"
    assert first.wait(20) == 0, first.log()
    before = by_run(stack, handles)
    nursery.worker("second", env)
    wait_until(
        lambda: all(now > then for (_, now), (_, then) in zip(by_run(stack, handles), before, strict=True)), "looks", 60
    )
    assert {made for made, _ in by_run(stack, handles)} == {1}
    assert {(view.attempts, len(view.provider_ids)) for view in (handle.result() for handle in handles)} == {(1, 1)}


def executions(folder: Path, handle: RunHandle) -> int:
    file = folder / EXECUTIONS
    return file.read_text().count(handle.id) if file.exists() else 0


def test_a_running_tool_is_given_its_time_unless_told_twice(stack: Stack, nursery: Nursery, tmp_path: Path) -> None:
    """Told once, the worker waits for the tool and hands over its output; told twice, its call is in doubt."""
    env = {
        **stack.env,
        "RUNWRIGHT_LEASE": "1",
        "RUNWRIGHT_TOOL_MODULES": "tests.chaos.effects",
        "RUNWRIGHT_TOOL_DATA": str(tmp_path),
    }
    patient, hurried = (nursery.worker(name, env, "-Q", f"runwright.{name}") for name in ("patient", "hurried"))
    asked = {"patient": 1.5, "hurried": 60}
    finished, doubtful = (
        runs.submit(assistant="clerk", input=f'[[call dawdle {{"seconds": {seconds}}}]][[say on]]', queue=queue)
        for queue, seconds in asked.items()
    )
    wait_until(lambda: executions(tmp_path, finished) and executions(tmp_path, doubtful), "both tools to run")
    patient.send(signal.SIGTERM)
    hurried.send(signal.SIGTERM)
    wait_until(lambda: "Warm shutdown" in hurried.log(), "the first signal to be heard")
    hurried.send(signal.SIGTERM)
    assert patient.wait(10) == 0, patient.log()
    assert [call["status"] for call in finished.result().tool_calls] == ["completed"]
    hurried.wait(15)
    nursery.worker("next", env, "-Q", "runwright.patient,runwright.hurried")
    views = [handle.wait(20) for handle in (finished, doubtful)]
    assert [view.status for view in views] == [Status.COMPLETED] * 2
    assert [view.tool_calls[0]["error"] for view in views] == [None, "in_doubt"]
    assert [executions(tmp_path, handle) for handle in (finished, doubtful)] == [1, 1]
