"""The Celery application: `celery -A worker.app worker` starts a worker, `beat` the scheduler, `flower` the rows."""

import gc
import itertools
import os
import signal
import sys
from typing import Any, NoReturn

import structlog
from celery import Celery, bootsteps, signals
from celery.concurrency.thread import TaskPool as ThreadPool
from celery.worker import state as worker_state
from sqlalchemy.exc import SQLAlchemyError

from tools.errors import ToolError
from worker.broker import control, wire
from worker.errors import RunwrightError
from worker.observation import telemetry
from worker.producer import producer
from worker.service import WorkerService
from worker.settings import Settings
from worker.store.database import explain

_log = structlog.get_logger(__name__)
# Options of `celery worker` that bound a pool of processes; the value is the setting of ours that means it.
_INSTEAD = {
    "time_limit": "RUNWRIGHT_RUN_TIMEOUT (a run), RUNWRIGHT_TOOL_TIMEOUT (a tool)",
    "soft_time_limit": "RUNWRIGHT_RUN_TIMEOUT (a run), RUNWRIGHT_TOOL_TIMEOUT (a tool)",
    "autoscale": "RUNWRIGHT_MAX_IN_FLIGHT",
    "max_tasks_per_child": "@tool(isolate=True), which gives each call a process of its own",
    "max_memory_per_child": "@tool(isolate=True), which gives each call a process of its own",
}


def refuse(error: Exception | str) -> NoReturn:
    """End the process with one line and exit code 2: settings are wrong, and a traceback would hide which."""
    print(f"runwright: {error}", file=sys.stderr)  # noqa: T201 - logging may not be set up yet
    raise SystemExit(2)


def _settings() -> tuple[Settings, dict[str, Any]]:
    try:
        settings = Settings.from_env()
        return settings, wire.configuration(settings)
    except RunwrightError as error:
        refuse(error)


settings, _configuration = _settings()
app = Celery("runwright")
app.conf.update(_configuration)


@signals.setup_logging.connect
def _set_up_logging(**_options: Any) -> None:
    telemetry.configure(settings)


class EngineStep(bootsteps.StartStopStep):
    """Starts the engine with the worker, beside the consumer: a broker that is lost and found leaves it alone."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        self._ignored = {name: options[name] for name in _INSTEAD if options.get(name)}
        super().__init__(worker, **options)
        if not issubclass(worker.pool_cls, ThreadPool) or _asks_for_prefork(sys.argv):
            refuse("--pool: only `threads`, which is the default: the engine and its tools share the worker's process")
        try:
            self.service = WorkerService(app, settings, worker.hostname, _queues())
        except (RunwrightError, ToolError) as error:
            refuse(error)
        except SQLAlchemyError as error:
            refuse(explain(error))
        worker.runwright_engine = self.service.engine
        # Of no use to us, and where the broker is gone its end raises and makes a good one look bad (celery 5.7,
        # bootsteps.py, ConsumerStep._close). The consumer is made after this.
        worker.options["without_gossip"] = True
        # Sent from within the signal's handler, while Celery's main loop may sleep for a second before it looks.
        signals.worker_shutting_down.connect(self._shutting_down)
        control.install(lambda run_id: producer().cancel(run_id))

    def start(self, worker: Any) -> None:
        """Start the engine and say in one line what runs here."""
        for name, value in self._ignored.items():
            option = f"--{name.replace('_', '-')}"
            _log.warning("option_without_effect", option=option, value=value, instead=_INSTEAD[name])
        self.service.start(_stop_worker)
        # What is loaded by now stays: the collector need not go through it again for every thousand runs.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        _log.info("worker_started", node=worker.hostname, **self.service.describe())

    def _shutting_down(self, **_options: Any) -> None:
        """Begin to hand over at the first signal; a second one gives running tools no more time."""
        if not self.service.engine.ready.is_set():  # still waiting for the database: nothing is held
            raise SystemExit(0)
        self.service.engine.begin_stop()

    def stop(self, worker: Any) -> None:
        """Hand every run over."""
        self.service.stop()
        if self.service.engine.failed:
            # Celery has noted its own signal, and a supervisor must not take this for an end.
            worker.exitcode = 1

    terminate = stop


def _asks_for_prefork(argv: list[str]) -> bool:
    """Tell an explicit `--pool prefork`: Celery takes it for its default and ignores it where a pool is configured."""
    given = {
        f"{option}{sep}{name}" for option in ("-P", "--pool") for sep in ("", "=") for name in ("prefork", "processes")
    }
    pairs = {f"{option}={value}" for option, value in itertools.pairwise(argv)}
    return bool(given & ({*argv} | pairs))


def _queues() -> list[str]:
    """Return the run queues that -Q names; raises SystemExit for one that is not ours."""
    names = sorted(app.amqp.queues.consume_from)
    for name in names:
        if wire.run_queue(name) is None:
            refuse(
                f"-Q {name}: queues of runs begin with {wire.QUEUE_PREFIX!r}; did you mean {wire.celery_queue(name)}?"
            )
    return [wire.run_queue(name) or "" for name in names]


def _stop_worker() -> None:
    """Stop a worker whose engine has died: a process that claims nothing must not look alive."""
    if worker_state.should_stop is None:
        worker_state.should_stop = 1
        os.kill(os.getpid(), signal.SIGTERM)


app.steps["worker"].add(EngineStep)
