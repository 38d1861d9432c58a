"""Carries errands to the provider, some at a time: in this process, or as a child of a command that is to stay light.

`python -m worker.care.messenger ERRAND` reads a JSON list of [id, place] from stdin and writes a line of JSON for each.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from worker.assistants.prices import Prices
from worker.backends.base import Pending
from worker.backends.choice import Backends
from worker.backends.places import Place
from worker.backends.survey import survey
from worker.care.errands import Errand, Outcome, Target
from worker.errors import ProviderError, RunwrightError
from worker.settings import Settings

_AT_ONCE = 16
"""Requests open at once: these are errands beside the workers' own requests."""


def send(settings: Settings, errand: Errand, targets: Sequence[Target]) -> Iterator[Outcome]:
    """Carry out one errand for many targets and give what came of each; not on a thread with a running loop."""
    outcomes: list[Outcome] = []
    asyncio.run(_carry_out(settings, errand, targets, outcomes.append))
    return iter(outcomes)


async def _carry_out(
    settings: Settings, errand: Errand, targets: Sequence[Target], tell: Callable[[Outcome], None]
) -> None:
    backends = Backends(settings, Prices.load(settings.prices), _AT_ONCE, crowded=lambda: False)
    rest = iter(targets)

    async def carry() -> None:
        for target in rest:
            tell(await _one(backends, errand, target))

    await asyncio.gather(*(carry() for _ in range(_AT_ONCE)))
    await backends.close()


async def _one(backends: Backends, errand: Errand, target: Target) -> Outcome:
    try:
        place = Place.parse(target.place)
        match errand:
            case Errand.SURVEY:
                return Outcome(target, found=asdict(await survey(backends.http(place))))
            case Errand.LOOK:
                return Outcome(target, active=isinstance(await backends.at(place).look(target.id), Pending))
            case Errand.CANCEL:
                await backends.at(place).cancel(target.id)
            case Errand.DELETE:
                await backends.at(place).delete_conversation(target.id)
    except ProviderError as error:
        return Outcome(target, error=str(error))
    return Outcome(target)


def _write(outcome: Outcome) -> None:
    sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Carry out the errand of the command line."""
    try:
        targets = [Target(*one) for one in json.load(sys.stdin)]
        asyncio.run(_carry_out(Settings.from_env(), Errand(sys.argv[1]), targets, _write))
    except RunwrightError as error:
        sys.stderr.write(f"runwright: {error}\n")
        raise SystemExit(2) from None
    except (KeyboardInterrupt, BrokenPipeError):
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
