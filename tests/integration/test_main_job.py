"""The main job: 200 runs over 50 threads, two tool calls each, two workers; nothing twice, nothing out of order."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from sqlalchemy import select

from tasks import runs
from tests.servers import Stack
from worker.lifecycle import Status
from worker.models import Attempt, Worker
from worker.producer import producer
from worker.store import reading
from worker.store.reading import RunView

pytestmark = pytest.mark.parametrize("stack", ["sqlite", "postgresql"], indirect=True)

RUNS, THREADS = 200, 50
# Fewer places than threads: one worker alone cannot hold them all.
ROOM = {"RUNWRIGHT_MAX_IN_FLIGHT": "30", "RUNWRIGHT_CLAIM_CHUNK": "10"}


def asked(number: int) -> str:
    """Ask for two calculations: every other run wants both in one step."""
    between = "[[then]]" if number % 2 else ""
    first, second = (f'[[call calculate {{"expression": "{number} {sign} 7"}}]]' for sign in "+*")
    return f"{first}{between}{second}[[say number {number}]]"


def submitted(assistant: str) -> list[str]:
    """Submit all runs in one transaction, the threads taking turns; returns their ids in order."""
    requests = [
        runs.RunRequest(assistant=assistant, input=asked(number), thread=f"thread-{number % THREADS}")
        for number in range(RUNS)
    ]
    return [handle.id for handle in runs.submit_many(requests)]


def ended(ids: Sequence[str]) -> list[RunView]:
    """Wait for the runs; returns them in order."""
    for run_id in ids:
        runs.handle(run_id).wait(60)
    with producer().database.read() as connection:
        found = reading.by_ids(connection, ids)
    return [found[run_id] for run_id in ids]


def by_thread(views: Sequence[RunView]) -> list[list[RunView]]:
    return [list(views[thread::THREADS]) for thread in range(THREADS)]


def check_rows(views: Sequence[RunView]) -> None:
    assert {view.status for view in views} == {Status.COMPLETED}
    for number, view in enumerate(views):
        assert [call["output"] for call in view.tool_calls] == [str(number + 7), str(number * 7)]
        assert (view.output_text, view.attempts) == (f"number {number}", 1)
    for line in by_thread(views):
        for before, after in pairwise(line):
            assert before.finished_at is not None
            assert after.started_at is not None
            assert before.finished_at <= after.started_at


def check_provider(stack: Stack, views: Sequence[RunView]) -> None:
    counted = stack.simulator.counters()
    assert (counted["overlaps"], counted["duplicate_steps"], counted["rejected"]) == (0, 0, {})
    steps = [2 + number % 2 for number in range(RUNS)]
    assert [counted["by_run"][view.id]["provider_runs"] for view in views] == steps
    assert counted["creates"] == counted["provider_runs"] == sum(steps)
    lines = [[view.id for view in line] for line in by_thread(views)]
    assert sorted(counted["order"].values()) == sorted(lines)


def test_two_workers_carry_200_runs_over_50_threads(stack: Stack) -> None:
    """All complete with both tool outputs; per thread one after another in the order of submitting, by two counts."""
    assistant = stack.assistant("clerk", tools=["calculate"])
    with stack.workers(2, **ROOM):
        views = ended(submitted(assistant))
        with producer().database.read() as connection:
            alive = set(connection.execute(select(Worker.id)).scalars())
            took_part = set(connection.execute(select(Attempt.worker)).scalars())
    check_rows(views)
    check_provider(stack, views)
    assert len(alive) == 2
    assert took_part == alive
