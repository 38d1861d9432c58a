"""Composition root of a worker: settings become a database, a backend, tools, and an engine that joins them."""

import asyncio
import importlib.metadata
import os
from collections.abc import Callable, Iterable
from functools import partial

import structlog
from celery import Celery

from tools.execution import Executor
from tools.registry import Registry
from worker import crashpoints, urls
from worker.assistants.prices import Prices
from worker.backends.choice import Backends
from worker.backends.places import DEFAULT_KEY, Place
from worker.broker import doorbell
from worker.broker.delivery import Delivery
from worker.broker.notice import EndNotices, Notices
from worker.broker.outlet import Outlet
from worker.engine import Engine
from worker.errors import SettingsError
from worker.limits.asking import Limits
from worker.limits.gates import Gates
from worker.observation import telemetry
from worker.observation.events import Events
from worker.observation.flower import FlowerEvents
from worker.observation.metrics import Metrics
from worker.observation.probe import Probe, signs
from worker.observation.vitals import Vitals
from worker.parts import Parts
from worker.pool import StorePool
from worker.run.looks import Looks
from worker.run.outage import Outage
from worker.settings import Settings
from worker.store import assistants, durations, schema
from worker.store.database import Database
from worker.watching.live import Broadcast, Live

_log = structlog.get_logger(__name__)
_SPARE = 10.0  # seconds beyond all limits of its own that the engine gets to end


class WorkerService:
    """One worker process: an engine, what it needs, and what listens to it."""

    def __init__(self, app: Celery, settings: Settings, node: str, queues: list[str]) -> None:
        """Build and check everything; raises RunwrightError or ToolError in one line for what cannot work."""
        self.settings = settings
        self.queues = queues
        crashpoints.arm(settings.crash_at)
        self.database = Database(settings.database_url, settings.database_pool)
        schema.check(self.database)
        self._looks = self._learnt_looks()
        self.registry = Registry.load(settings.tool_modules)
        self.prices = Prices.load(settings.prices)
        _check_key(self.database, settings)
        self.bell = doorbell.Doorbell(settings)
        self.outlet = Outlet()
        self.events = Events()
        self.events.subscribe(telemetry.log_event)
        self.metrics = Metrics(self.registry.names())
        self.events.subscribe(self.metrics)
        self.events.subscribe(EndNotices(Notices(settings), self.outlet))
        self.events.subscribe(FlowerEvents(app, node, self.outlet))
        if settings.publish != "off":
            self.events.subscribe(Broadcast(settings, Live(settings), self.outlet))
        self.events.subscribe(Delivery(settings, self.database, self.outlet))
        self.probe = Probe(settings.http)
        self.vitals: Vitals | None = None
        self.engine = Engine(node, queues, self._parts, self._ring, self.probe.url)
        doorbell.on_ring(self.engine.wake)

    def _parts(self) -> Parts:
        self._loop = asyncio.get_running_loop()
        settings = self.settings
        store = StorePool(self.database, settings.database_pool)
        backends = Backends(settings, self.prices, crowded=lambda: store.crowded)
        return Parts(
            settings=settings,
            store=store,
            backends=backends,
            registry=self.registry,
            executor=Executor(
                self.registry,
                threads=settings.tool_threads,
                processes=settings.tool_processes,
                timeout=settings.tool_timeout,
            ),
            events=self.events,
            outage=Outage(),
            limits=self._limits(backends),
            looks=self._looks,
        )

    def _learnt_looks(self) -> Looks:
        """Begin with what other workers, and this one before, have waited for."""
        settings = self.settings
        looks = Looks(settings.poll_min, settings.poll_max, settings.request_limit)
        with self.database.read() as connection:
            looks.seed(durations.newest(connection))
        return looks

    def _ring(self, queues: Iterable[str]) -> None:
        """Ring from the outlet's thread: a Redis that does not answer must not hold up the engine."""
        self.outlet.put(partial(self.bell.ring, list(queues)))

    def _limits(self, backends: Backends) -> Gates:
        settings = self.settings
        most = (settings.requests_per_minute, settings.tokens_per_minute, settings.runs_at_provider)
        return Gates(
            urls.async_redis_client(settings.broker_url()),
            Limits(*(limit or 0 for limit in most)),
            whose=backends.whose,
            emit=self.events.emit,
        )

    def describe(self) -> dict[str, object]:
        """Return what the one line at boot says; no secret in it."""
        settings = self.settings
        return {
            "version": _version(),
            "pool": "threads",
            "queues": ",".join(self.queues),
            "max_in_flight": settings.max_in_flight,
            "database": urls.without_secret(settings.database_url),
            "broker": urls.without_secret(settings.broker_url()),
            "provider": f"{settings.backend} at {settings.openai_base_url or 'OpenAI'}",
            "tools": len(self.registry.names()),
            "http": self.probe.url or "off",
        }

    def start(self, on_death: Callable[[], None]) -> None:
        """Start the engine and tell how it is; on_death is called if it dies by itself."""
        self.outlet.start()
        self.engine.start(on_death)
        self.vitals = vitals = Vitals(self.settings, self.engine, self._loop, _version())
        self.metrics.watch(vitals, self.queues, self.settings.max_in_flight)
        pages = {
            "/livez": lambda: signs(vitals.live()),
            "/healthz": lambda: signs(vitals.ready()),
            "/metrics": self.metrics.page,
        }
        self.probe.start(pages)

    def stop(self) -> None:
        """Hand every run over and let what was told reach Redis; a process that cannot do so in time ends at once.

        A tool or a database that never returns would keep it for good, and its runs are others' when its lease is over.
        """
        settings = self.settings
        if self.vitals:
            self.vitals.stopping = True
        ended = self.engine.stop(settings.tool_grace + 2 * settings.lease + _SPARE)
        self.outlet.stop()
        if not ended:
            _log.critical("stopped_by_force")
            os._exit(1)
        self.probe.stop()
        if self.vitals:
            self.vitals.close()
        self.database.close()


def _version() -> str:
    return importlib.metadata.version("runwright-worker")


def _check_key(database: Database, settings: Settings) -> None:
    """Refuse to start where no run could be carried: the one key is missing that all assistants need."""
    with database.read() as connection:
        configs = [version.config for version in assistants.all_newest(connection)]
    keys = {Place.of(config, settings.backend).key for config in configs} or {DEFAULT_KEY}
    if all(key is not None and settings.key(key) is None for key in keys):
        missing = " and ".join(sorted(filter(None, keys)))
        raise SettingsError(
            f"{missing}: not set; the worker needs the provider's key (any text for one that asks for none)"
        )
