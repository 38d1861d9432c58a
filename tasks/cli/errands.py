"""Errands to the provider from the shell: a child carries them out, so that no command loads the provider's client."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

from worker.care.errands import Errand, Outcome, Target
from worker.errors import RunwrightError
from worker.settings import environment


def send(errand: Errand, targets: Sequence[Target]) -> Iterator[Outcome]:
    """Carry out one errand for many; raises RunwrightError where the child cannot, which has said why on stderr."""
    if not targets:
        return
    with subprocess.Popen(  # noqa: S603 - our own module, no shell
        [sys.executable, "-m", "worker.care.messenger", errand.value],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None  # noqa: S101 - for the type checker
        assert child.stdout is not None  # noqa: S101 - for the type checker
        with child.stdin:
            json.dump(list(targets), child.stdin)
        for line in child.stdout:
            told = json.loads(line)
            yield Outcome(**told | {"target": Target(*told["target"])})
    if child.returncode:
        raise RunwrightError("the provider could not be asked")
