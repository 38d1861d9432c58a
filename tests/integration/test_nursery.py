"""The nursery itself: real workers in a fraction of a second, and nothing left of them."""

import signal
import subprocess

import pytest

from tasks import runs
from tests.nursery import Nursery
from tests.servers import Stack, wait_until
from worker.lifecycle import Status

pytestmark = pytest.mark.parametrize("stack", ["postgresql"], indirect=True, scope="module")


def gone(pid: int) -> bool:
    return subprocess.run(["ps", "-p", str(pid)], stdout=subprocess.DEVNULL, check=False).returncode == 1


def test_a_forked_worker_is_a_worker(stack: Stack) -> None:
    """It carries a run, ends by itself when told to, and tells of a kill by its signal; the exit leaves none."""
    stack.assistant("plain", tools=["calculate"])
    with Nursery(stack.folder) as nursery:
        first = nursery.worker("first", stack.env)
        wait_until(first.is_ready, "the first worker")
        handle = runs.submit(assistant="plain", input='[[call calculate {"expression": "1 + 2"}]][[say done]]')
        assert handle.wait(20).status is Status.COMPLETED
        first.send(signal.SIGTERM)
        assert first.wait(20) == 0, first.log()
        second, third = (nursery.worker(name, stack.env) for name in ("second", "third"))
        wait_until(second.is_ready, "the second worker")
        second.send(signal.SIGKILL)
        assert second.wait(5) == -signal.SIGKILL
        assert not gone(third.pid)
    wait_until(lambda: gone(third.pid), "the end of the third worker")
