"""Carries errands to the provider, some at a time: in this process, or as a child of a command that is to stay light.

`python -m worker.messenger ERRAND` reads a JSON list of ids from stdin and writes each outcome as a line of JSON.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from worker.backends.base import Backend, Pending
from worker.backends.responses import ResponsesBackend
from worker.errands import Errand, Outcome
from worker.errors import ProviderError, RunwrightError, SettingsError
from worker.prices import Prices
from worker.settings import Settings

_AT_ONCE = 16
"""Requests open at once: these are errands beside the workers' own requests."""


def send(settings: Settings, errand: Errand, ids: Sequence[str]) -> Iterator[Outcome]:
    """Carry out one errand for many ids and give what came of each; not on a thread with a running loop."""
    outcomes: list[Outcome] = []
    asyncio.run(_carry_out(settings, errand, ids, outcomes.append))
    return iter(outcomes)


async def _carry_out(settings: Settings, errand: Errand, ids: Sequence[str], tell: Callable[[Outcome], None]) -> None:
    backend, rest = _backend(settings), iter(ids)

    async def carry() -> None:
        for provider_id in rest:
            tell(await _one(backend, errand, provider_id))

    await asyncio.gather(*(carry() for _ in range(_AT_ONCE)))
    await backend.close()


async def _one(backend: Backend, errand: Errand, provider_id: str) -> Outcome:
    try:
        match errand:
            case Errand.LOOK:
                return Outcome(provider_id, active=isinstance(await backend.look(provider_id), Pending))
            case Errand.CANCEL:
                await backend.cancel(provider_id)
            case Errand.DELETE:
                await backend.delete_conversation(provider_id)
    except ProviderError as error:
        return Outcome(provider_id, error=str(error))
    return Outcome(provider_id)


def _backend(settings: Settings) -> Backend:
    if settings.openai_api_key is None:
        raise SettingsError("OPENAI_API_KEY: not set; the provider cannot be asked")
    return ResponsesBackend(
        api_key=settings.openai_api_key.get_secret_value(),
        base_url=settings.openai_base_url,
        requests=_AT_ONCE,
        timeout=settings.request_timeout,
        prices=Prices.load(settings.prices),
    )


def _write(outcome: Outcome) -> None:
    sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Carry out the errand of the command line."""
    try:
        asyncio.run(_carry_out(Settings.from_env(), Errand(sys.argv[1]), json.load(sys.stdin), _write))
    except RunwrightError as error:
        sys.stderr.write(f"runwright: {error}\n")
        raise SystemExit(2) from None
    except (KeyboardInterrupt, BrokenPipeError):
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
