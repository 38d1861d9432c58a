"""What running a command takes and listing it does not: its module, logs on stderr, and how every error ends."""

import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import structlog
import typer
import typer.main
from sqlalchemy.exc import SQLAlchemyError

from tasks.cli.output import note
from tools.errors import ToolError
from worker.errors import RunwrightError
from worker.store.database import explain


def command(name: str, module: str) -> Any:
    """Return a command, or a group of them, of a module of commands."""
    group = typer.main.get_group(importlib.import_module(f"tasks.cli.{module}").app)
    return group if group.name == name else group.commands[name]


@contextmanager
def logs_on_stderr() -> Iterator[None]:
    """Show warnings of ours on stderr while the command runs: stdout is for its result."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        yield
    finally:
        structlog.reset_defaults()


def end(error: Exception) -> NoReturn:
    """End with one line on stderr and exit code 2; an error of ours is raised again."""
    match error:
        case typer.TyperException():
            _stop(_misused(error))
        case typer.Abort():
            note("runwright: aborted")
            raise SystemExit(1)
        case RunwrightError() | ToolError():
            _stop(str(error))
        case SQLAlchemyError():
            _stop(explain(error))
        case UnicodeEncodeError():
            _stop("an argument holds characters that are not UTF-8")
        case OSError():
            _stop(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    raise error


def _misused(error: typer.TyperException) -> str:
    """Say what is wrong with a command line, and whose help says more; nothing where that has been shown already."""
    told = " ".join(error.format_message().split()).replace("Value error, ", "")  # pydantic's, who reads enumerations
    context = getattr(error, "ctx", None)
    return f"{told.rstrip('.')}; see `{context.command_path} --help`" if told and context else told


def _stop(message: str) -> NoReturn:
    for line in message.splitlines():
        note(f"runwright: {line}")
    raise SystemExit(2)
