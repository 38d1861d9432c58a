"""A real worker with discounted completion windows: what is sent for each step, and what a run and a batch cost."""

from collections.abc import Iterator

import pytest
from sqlalchemy import select

from tasks import batches, runs
from tasks.batches import Document
from tests.servers import CeleryWorker, Stack, wait_until
from worker.assistants.prices import Prices
from worker.errors import UsageError
from worker.lifecycle import Status
from worker.models import Run
from worker.producer import producer
from worker.store.batches import Progress, progress

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True, scope="module")

MODEL = "gpt-4o-mini"
_SOON = {"RUNWRIGHT_POLL_MIN": "0.02", "RUNWRIGHT_POLL_MAX": "0.05"}  # of windows ten times that
SUM = '[[call calculate {"expression": "1 + 2"}]][[say three]]'


@pytest.fixture(scope="module")
def worker(stack: Stack) -> Iterator[CeleryWorker]:
    """Run a worker that streams what may be streamed."""
    for window in ("soonest", "2h", "8h"):
        stack.assistant(f"in-{window}", model=MODEL, tools=["calculate"], completion_window=window)
    with stack.worker("--without-mingle", "--without-gossip", RUNWRIGHT_STREAM="on", **_SOON) as worker:
        yield worker


def full(input_tokens: int | None, output_tokens: int | None) -> float:
    """Return what these tokens cost by the price list."""
    cost = Prices.load().cost(MODEL, input_tokens or 0, output_tokens or 0)
    assert cost
    return cost


@pytest.mark.parametrize(("window", "part", "streams"), [("2h", 0.7, 0), ("8h", 0.6, 0), ("soonest", 1, 2)])
def test_each_step_of_a_run_has_its_window(
    stack: Stack, worker: CeleryWorker, window: str, part: float, streams: int
) -> None:
    """Expected: both steps asked for it under the run's id, neither was streamed, and all of it costs less."""
    before = stack.simulator.counters(by_run=False)["streams"]
    view = runs.submit(assistant=f"in-{window}", input=SUM).wait(30)
    assert (view.status, view.output_text) == (Status.COMPLETED, "three")
    options = {"completion_window": window, "continuation_id": view.id}
    assert stack.simulator.run(view.id)["background_options"] == [options] * 2
    assert stack.simulator.counters(by_run=False)["streams"] - before == streams
    used = view.usage["input_tokens"], view.usage["output_tokens"]
    assert view.cost_usd == pytest.approx(full(*used) * part)


def test_a_batch_costs_less(stack: Stack, worker: CeleryWorker) -> None:
    """Expected: its cost has the discount, too."""
    documents = [Document(f"{number}.txt", "[[say read]]") for number in range(3)]
    batch_id = batches.submit(producer(), "in-8h", "Read this.", documents)

    def standing() -> Progress:
        with producer().database.read() as connection:
            return progress(connection, batch_id)

    wait_until(lambda: standing().statuses == {"completed": 3}, "the batch to complete")
    found = standing()
    assert found.cost_usd == pytest.approx(full(found.input_tokens, found.output_tokens) * 0.6)


def test_a_run_has_time_for_its_window(stack: Stack, worker: CeleryWorker) -> None:
    """Expected: three windows, where neither the assistant nor the submit says how much."""
    stack.assistant("patient", model=MODEL, completion_window="8h", timeout=90_000.0)
    asked = [
        runs.submit(assistant="in-soonest", input="hello"),
        runs.submit(assistant="in-8h", input="hello"),
        runs.submit(assistant="in-8h", input="hello", timeout=30_000.0),
        runs.submit(assistant="patient", input="hello"),
    ]
    with producer().database.read() as connection:
        timeouts = {row.id: row.timeout for row in connection.execute(select(Run.id, Run.timeout))}
    assert [timeouts[run.id] for run in asked] == [3_600, 3 * 28_800, 30_000, 90_000]
    with pytest.raises(UsageError, match="less than the completion_window of assistant 'in-8h', 28800 s"):
        runs.submit(assistant="in-8h", input="hello", timeout=60.0)
