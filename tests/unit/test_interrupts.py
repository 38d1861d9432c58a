"""Signals to a command with processes of its own: they break off its work, and never the stopping."""

import os
import signal
from pathlib import Path

import pytest

from tasks.cli.interrupts import Interrupts
from tasks.cli.stack import Stack
from tests.servers import wait_until

STUBBORN = """
import signal, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
print("ready", flush=True)
while len(told) < {times}:
    time.sleep(0.01)
"""


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def two() -> None:
    """Send one signal, and another while the first is being heeded."""
    try:
        interrupt()
    finally:
        interrupt()


def test_a_signal_breaks_off_only_where_it_may() -> None:
    """Expected: kept outside of such a block, raised at its begin or within; a further one only hurries."""
    interrupts = Interrupts()
    with interrupts.taken():
        interrupt()
        with pytest.raises(KeyboardInterrupt), interrupts.breaking():
            pytest.fail("not begun")
        assert not interrupts.hurried
        interrupt()
        assert interrupts.hurried


def test_the_first_signal_within_the_block_is_raised_and_the_second_is_not() -> None:
    """Expected: what ends the block is not broken off by the other of two signals that come together."""
    interrupts = Interrupts()
    with interrupts.taken():
        with pytest.raises(KeyboardInterrupt), interrupts.breaking():
            two()
        assert interrupts.hurried
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_an_ignored_signal_stays_ignored() -> None:
    """Expected: what was started with nohup outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts().taken():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("signals", [1, 2])
def test_a_further_signal_is_passed_on(tmp_path: Path, signals: int) -> None:
    """Expected: a process that ends at its second SIGTERM gets it from the second signal, from the first none."""
    (tmp_path / "stubborn.py").write_text(STUBBORN.format(times=signals))
    stack = Stack(tmp_path, {"PYTHONPATH": str(tmp_path)})
    with stack.interrupts.taken():
        stack.start("worker", "stubborn")
        try:
            wait_until(lambda: "ready" in (stack.logs / "worker.log").read_text(), "the process")
            with pytest.raises(KeyboardInterrupt), stack.interrupts.breaking():
                interrupt()
            for _ in range(signals - 1):
                interrupt()
        finally:
            stack.stop()
    assert stack._children["worker"].returncode == 0
