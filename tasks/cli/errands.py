"""Errands to the provider from the shell: a child carries them out, so that no command loads the provider's client."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

from worker.errands import Errand, Outcome
from worker.errors import RunwrightError
from worker.settings import environment


def send(errand: Errand, ids: Sequence[str]) -> Iterator[Outcome]:
    """Carry out one errand for many ids; raises RunwrightError where the child cannot, which has said why on stderr."""
    if not ids:
        return
    with subprocess.Popen(  # noqa: S603 - our own module, no shell
        [sys.executable, "-m", "worker.messenger", errand.value],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None  # noqa: S101 - for the type checker
        assert child.stdout is not None  # noqa: S101 - for the type checker
        with child.stdin:
            json.dump(list(ids), child.stdin)
        for line in child.stdout:
            yield Outcome(**json.loads(line))
    if child.returncode:
        raise RunwrightError("the provider could not be asked")
