"""What every runner of a worker shares."""

from dataclasses import dataclass

from tools.execution import Executor
from tools.registry import Registry
from worker.backends.choice import Backends
from worker.limits.gates import Gates
from worker.observation.events import Events
from worker.pool import StorePool
from worker.run.looks import Looks
from worker.run.outage import Outage
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """Built once by worker.service on the engine's loop."""

    settings: Settings
    store: StorePool
    backends: Backends
    registry: Registry
    executor: Executor
    events: Events
    outage: Outage
    limits: Gates
    looks: Looks

    async def close(self) -> None:
        """End what goes on, and close the connections."""
        await self.limits.close()
        await self.backends.close()
        await self.executor.close()
        self.store.close()
