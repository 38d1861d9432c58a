"""A worker is killed at every crash point; two others carry everything to its end, and nothing happens twice."""

import base64
import contextlib
import json
import os
import signal
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import pytest
import redis
from sqlalchemy import func, select, update

from tasks import approvals, runs
from tasks.runs import RunRequest
from tests.chaos.audit import Audit, Expected
from tests.chaos.effects import TOOLS
from tests.chaos.scenarios import HOOK, LAST, PLACES, REFUSED, Scenario
from tests.nursery import Forked, Nursery
from tests.servers import Stack, wait_until
from worker import urls
from worker.broker import wire
from worker.lifecycle import TERMINAL
from worker.models import Outgoing, Run
from worker.producer import producer

pytestmark = pytest.mark.parametrize("stack", ["postgresql"], indirect=True, scope="module")

AT_ONCE = 6
DEATH = 45.0


class Doomed:
    """A worker that is armed for one point, and the runs of two threads on a queue that it alone serves."""

    def __init__(self, point: str, scenario: Scenario) -> None:
        self.point = point
        self.queue = f"{point}-aside" if scenario.aside else point
        self._scenario = scenario
        self._acted = False
        lines = [(f"{point}-0", ask) for ask in scenario.line] + [(f"{point}-1", scenario.line[0])]
        handles = runs.submit_many(
            RunRequest(assistant="clerk", input=ask.text, thread=thread, queue=self.queue, on_end=HOOK)
            for thread, ask in lines
        )
        self.expected = [Expected(h.id, ask.steps, ask.status) for h, (_, ask) in zip(handles, lines, strict=True)]
        self._firsts = [handles[0], handles[-1]]

    def start(self, nursery: Nursery, env: dict[str, str]) -> None:
        armed = {**env, **self._scenario.env, "RUNWRIGHT_CRASH_AT": self.point}
        self.worker = nursery.worker(self.point, armed, "-Q", wire.celery_queue(self.point))
        self._dies_by = time.monotonic() + DEATH

    def is_dead(self) -> bool:
        """Act on the worker and tell whether it has died, as it must, at its point."""
        worker = self.worker
        if worker.ended:
            assert worker.code == -signal.SIGKILL, f"{self.point}: ended with {worker.code}:\n{worker.log()}"
            return True
        assert time.monotonic() < self._dies_by, f"{self.point} was not reached:\n{worker.log()}"
        self._acted = self._acted or self._scenario.act(worker, self._firsts)
        return False


def all_die(nursery: Nursery, env: dict[str, str], doomed: Iterable[Doomed]) -> None:
    """Run the armed workers, a few at a time, until each has died."""
    waiting, alive = deque(doomed), list[Doomed]()
    while waiting or alive:
        while waiting and len(alive) < AT_ONCE:
            alive.append(waiting.popleft())
            alive[-1].start(nursery, env)
        alive = [one for one in alive if not one.is_dead()]
        time.sleep(0.02)


def survivors(nursery: Nursery, env: dict[str, str], queues: Iterable[str]) -> list[Forked]:
    served = ",".join(wire.celery_queue(queue) for queue in queues)
    return [nursery.worker(f"survivor-{number}", env, "-Q", served) for number in range(2)]


def told(redis_url: str) -> set[str]:
    """Return the runs whose end was sent to the queue of the hooks."""
    with redis.Redis.from_url(urls.redis_client_url(redis_url)) as client:
        messages = [json.loads(raw) for raw in client.lrange("hooks", 0, -1)]
    return {json.loads(base64.b64decode(message["body"]))[0][0]["id"] for message in messages}


def is_over() -> bool:
    """Agree to whatever is asked, and tell whether every run has ended and every end is told."""
    for question in approvals.pending():
        approvals.approve(question.run_id, question.call_id, by="the test")
    time.sleep(0.2)
    with producer().database.read() as connection:
        going = connection.execute(select(func.count()).where(Run.status.not_in(TERMINAL))).scalar_one()
        return not going and not connection.execute(select(func.count()).select_from(Outgoing)).scalar_one()


@pytest.mark.timeout(240)
def test_a_kill_at_any_point_loses_nothing_and_repeats_nothing(stack: Stack, nursery: Nursery, tmp_path: Path) -> None:
    """Each armed worker dies at its point; then all runs end as they were asked, and every end is told."""
    stack.assistant("clerk", tools=TOOLS)
    env = {
        **stack.env,
        "RUNWRIGHT_LEASE": "2",
        "RUNWRIGHT_TOOL_MODULES": "tests.chaos.effects",
        "RUNWRIGHT_TOOL_DATA": str(tmp_path),
    }
    doomed = [Doomed(f"{p}.{when}", scenario) for p, scenario in PLACES.items() for when in ("before", "after")]
    by_place = {place: [one for one in doomed if one.point.rpartition(".")[0] == place] for place in PLACES}
    stack.simulator.settings(rate_limit_share=1.0, retry_after=0.1)
    all_die(nursery, env, [one for place in REFUSED for one in by_place[place]])
    stack.simulator.settings(rate_limit_share=0.0)
    all_die(nursery, env, [one for place in PLACES if place not in REFUSED | LAST for one in by_place[place]])
    all_die(nursery, env, [one for place in LAST for one in by_place[place]])
    expected = [run for one in doomed for run in one.expected]
    with producer().database.write() as connection:  # half a minute passes: what the dead were sending is anybody's
        connection.execute(update(Outgoing).values(taken_until=None))
    # A loop that stands still for three leases ends its process, and on a busy machine theirs has much to do at once.
    # The slowest response takes two seconds, and who looks for it must have more patience than that.
    calm = {**env, "RUNWRIGHT_LEASE": "4", "RUNWRIGHT_ADOPTION_WAIT": "10"}
    survivors(nursery, calm, [queue for one in doomed for queue in {one.point, one.queue}])

    with contextlib.suppress(AssertionError):  # the audit says which runs have not ended
        wait_until(is_over, "the end of all runs", 60)
    audit = Audit(expected, stack.simulator.counters(), tmp_path)
    assert {kind: found for kind, found in audit.faults().items() if found} == {}
    assert {run.id for run in expected} <= told(os.environ["REDIS_URL"])
    assert audit.adopted() > 0
