"""A bug of ours meets a run that is in flight: it costs time, never a second response, and in the end only its run."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from tests.conformance.ground import Ground
from tests.servers import wait_until
from tests.workbench import Provider, parts
from worker.backends.base import Done, Pending
from worker.engine import Engine
from worker.lifecycle import Status
from worker.models import Attempt, Thread
from worker.response import Usage
from worker.store import asking, assistants

ANSWER = Done("an answer", Usage(), "item_1")
BUG = RuntimeError("a bug of ours")


@pytest.fixture
def ground(sqlite_url: str) -> Iterator[Ground]:
    """Give a SQLite database with an assistant."""
    ground = Ground(sqlite_url)
    yield ground
    ground.close()


def carried(ground: Ground, provider: Provider | None = None, *, cancel: bool = False) -> Any:
    """Let an engine carry one run on this provider, or on real backends; returns the run's row when it has ended."""
    run_id = ground.submit()
    engine = Engine("node", ["default"], lambda: parts(ground, provider), lambda _queues: None)
    engine.start(lambda: None)
    try:
        if cancel and provider:
            wait_until(lambda: provider.looked, "a response in flight")
            ground.write(asking.ask_cancel, run_id)
        wait_until(lambda: ground.row(run_id).finished_at, "the end of the run")
    finally:
        assert engine.stop(10)
    return ground.row(run_id)


def of_attempt(ground: Ground) -> Any:
    with ground.database.read() as connection:
        return connection.execute(select(Attempt)).one()


def conversation(ground: Ground) -> str | None:
    with ground.database.read() as connection:
        return connection.execute(select(Thread.provider_id)).scalar_one()


def test_a_crash_goes_on_with_the_same_response(ground: Ground) -> None:
    """Two looks crash, the third one finds the answer: one create, one attempt, always the same id."""
    provider = Provider(BUG, BUG, ANSWER)
    row = carried(ground, provider)
    assert (row.status, row.output_text, row.attempt) == (Status.COMPLETED, "an answer", 1)
    assert (len(provider.created), provider.looked) == (1, ["response 1"] * 3)
    assert (of_attempt(ground).crashes, of_attempt(ground).provider_ids) == (2, ["response 1"])


def test_a_run_that_crashes_every_time_fails_and_leaves_its_conversation(ground: Ground) -> None:
    """The third crash is the last; its response may go on, so the thread does not go on with it."""
    provider = Provider(BUG)
    row = carried(ground, provider)
    assert (row.status, row.error_code, row.attempt) == (Status.FAILED, "internal_error", 1)
    assert (len(provider.created), len(provider.looked)) == (1, 3)
    assert conversation(ground) is None


def test_a_cancel_that_crashes_every_time_leaves_its_conversation(ground: Ground) -> None:
    """The run ends cancelled although nobody stopped its response, with which the thread does not go on."""
    provider = Provider(Pending())
    assert carried(ground, provider, cancel=True).status == Status.CANCELLED
    assert (len(provider.created), of_attempt(ground).crashes) == (1, 2)
    assert conversation(ground) is None


def test_a_protocol_that_this_version_does_not_know_ends_its_runs(ground: Ground) -> None:
    """Expected: the run of an assistant of a newer version is let go to other workers, and in the end has failed."""
    ground.assistant_id = ground.write(assistants.apply, "newer", {"model": "m", "backend": "of_tomorrow"})[0].id
    row = carried(ground)
    assert (row.status, row.error_code, row.attempt) == (Status.FAILED, "unknown_backend", 1)
    assert of_attempt(ground).crashes == 2
