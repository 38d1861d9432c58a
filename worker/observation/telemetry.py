"""Logs: every line, ours and the libraries', goes to stderr through one renderer.

What is bound with `structlog.contextvars` (run_id, thread_id, attempt) stands on every line. Below DEBUG nothing of
ours logs message text, and the fields that libraries attach to their records (Celery: task arguments) are left out.
"""

import logging
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from worker.settings import Settings
from worker.urls import without_secret

# These log whole requests at DEBUG and every request or doorbell at INFO: message text, and noise.
_NOISY = ("httpx2", "httpcore2", "openai", "alembic", "celery.worker.strategy", "celery.app.trace")
_SECRET_NAME = re.compile(r"authorization|api_?key|password|secret|^token$", re.IGNORECASE)
_API_KEY = re.compile(r"\bsk-[\w-]{8,}")
_AUTHORIZATION = re.compile(r"(authorization\W{1,6}(?:basic\s+|bearer\s+)?|bearer\s+)[\w.~+/=-]+", re.IGNORECASE)


def configure(settings: Settings) -> None:
    """Set up all logging of this process.

    A later call replaces an earlier one.
    """

    every_line: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *every_line,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=every_line,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                mask_secrets,
                _renderer(settings.log_format),
            ],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask keys, passwords and authorizations wherever they stand: the last guard, not the first."""
    return {name: _masked(name, value) for name, value in event.items()}


def _masked(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if _SECRET_NAME.search(name):
        return "***"
    if isinstance(value, Mapping):
        return {str(key): _masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(name, inner) for inner in value]
    return _masked_text(value if isinstance(value, str) else repr(value))


@lru_cache(maxsize=4096)  # most values come again and again: ids, statuses, names
def _masked_text(text: str) -> str:
    return _AUTHORIZATION.sub(r"\1***", _API_KEY.sub("sk-***", without_secret(text)))


def _renderer(log_format: str) -> Processor:
    terminal = sys.stderr.isatty()
    if log_format == "console" or (log_format == "auto" and terminal):
        # The plain traceback: the pretty ones print local variables.
        return structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback)
    return structlog.processors.JSONRenderer(ensure_ascii=False)


_events = structlog.get_logger("worker.observation.events")
_is_logged = logging.getLogger("worker.observation.events").isEnabledFor
# Shown on every line already (claim), or for the metrics only.
_NOT_LOGGED = frozenset({"claim", "usage", "provider_ended_at"})
_WARNINGS = frozenset(
    {
        "claim.lost",
        "provider.refused",
        "run.answer_lost",
        "run.crashed",
        "run.retried",
        "run.unknown",
        "worker.reaped",
    }
)
# What happens to every run, and stands in `runwright show ID --events`: a line of each costs as much as its request.
_COURSE = frozenset({"run.claimed", "run.created", "run.requires_action", "tool.finished"})
# A tick for those who have something to do now and then, what is for the metrics alone, and what the model says.
_SILENT = frozenset({"worker.tended", "limit.waited", "run.text"})


def log_event(name: str, fields: Mapping[str, Any]) -> None:
    """Log one event of the engine; ids, names, codes and counts only."""
    ordinary = name in _COURSE and not fields.get("error")
    if name in _SILENT or (ordinary and not _is_logged(logging.DEBUG)):
        return
    told = {key: value for key, value in fields.items() if key not in _NOT_LOGGED and value not in (None, "")}
    log = _events.debug if ordinary else _events.warning if name in _WARNINGS else _events.info
    log(name, **told)
