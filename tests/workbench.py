"""A worker's parts without its servers: a real SQLite store and real tools, and a provider that does as it is told."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import fakeredis

from tests.conformance.ground import Ground
from tools.execution import Executor
from tools.registry import Registry, tool_of
from worker.assistants.prices import Prices
from worker.backends.base import Created, Ended, Look, Step, Tail
from worker.backends.bounds import Readers
from worker.backends.choice import Backends
from worker.backends.places import PROTOCOLS, Place
from worker.limits.asking import Limits
from worker.limits.gates import Gates
from worker.observation.events import Events
from worker.parts import Parts
from worker.pool import StorePool
from worker.response import Opened
from worker.run.looks import Looks
from worker.run.outage import Outage
from worker.settings import Settings

SOON = {
    "RUNWRIGHT_POLL_MIN": "0.01",
    "RUNWRIGHT_POLL_MAX": "0.02",
    "RUNWRIGHT_RETRY_MIN": "0.01",
    "RUNWRIGHT_RETRY_MAX": "0.02",
    "RUNWRIGHT_ADOPTION_WAIT": "0.05",
}


class Provider:
    """Counts what it creates; each look takes the next of `looks`, the last one for ever, and raises it if it can.

    To cancel is more than it can do: that raises what no provider's backend may raise.
    """

    can = PROTOCOLS["responses"]

    def __init__(self, *looks: Look | Exception) -> None:
        self._looks = list(looks)
        self.slots = asyncio.Semaphore(64)
        self.readers = Readers(48)
        self.created: list[Step] = []
        self.looked: list[str] = []

    async def open_conversation(self, thread_id: str, history: Sequence[Mapping[str, Any]] = ()) -> Opened:
        return Opened(f"conversation of {thread_id} with {len(history)} messages")

    async def create(self, step: Step) -> Created:
        self.created.append(step)
        return Created(f"response {len(self.created)}")

    async def adopt(self, step: Step, after: str) -> Ended | None:
        return None

    async def tail(self, conversation: str) -> Tail:
        return Tail("", ())

    async def look(self, provider_id: str) -> Look:
        self.looked.append(provider_id)
        look = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        if isinstance(look, Exception):
            raise look
        return look

    async def cancel(self, provider_id: str) -> None:
        raise RuntimeError(f"it cannot cancel {provider_id}")

    async def delete_conversation(self, conversation: str) -> None:
        raise RuntimeError(f"it cannot delete {conversation}")


class One(Backends):
    """Gives every place the same provider."""

    def __init__(self, settings: Settings, provider: Provider) -> None:
        super().__init__(settings, Prices({}), crowded=lambda: False)
        self._provider = provider

    def at(self, place: Place) -> Provider:
        return self._provider


def parts(ground: Ground, provider: Provider | None, *functions: Callable[..., object], **settings: object) -> Parts:
    """Return the parts of a worker with these tools on the ground's database; settings go by their own names.

    Without a provider its backends are real ones.
    """
    registry = Registry(made for function in functions if (made := tool_of(function)))
    changes = {Settings.model_fields[name].alias or "": str(value) for name, value in settings.items()}
    chosen = Settings.from_env({"DATABASE_URL": ground.database.url, "OPENAI_API_KEY": "sk-test", **SOON, **changes})
    store = StorePool(ground.database, 1)
    real = Backends(chosen, Prices.load(), crowded=lambda: store.crowded)
    backends = real if provider is None else One(chosen, provider)
    return Parts(
        settings=chosen,
        store=store,
        backends=backends,
        registry=registry,
        executor=Executor(registry),
        events=Events(),
        outage=Outage(),
        limits=Gates(fakeredis.FakeAsyncRedis(), Limits(), whose=backends.whose, emit=lambda *_, **__: None),
        looks=Looks(chosen.poll_min, chosen.poll_max, chosen.request_limit),
    )
