"""The command tree, and how every error ends: one line on stderr and an exit code."""

import io
import logging
import sys
from typing import NoReturn

import structlog
import typer
from sqlalchemy.exc import SQLAlchemyError

from tasks.cli import (
    approval_commands,
    assistant_commands,
    batch_commands,
    care_commands,
    change_commands,
    local,
    run_commands,
    schema_commands,
    status_commands,
    tool_commands,
)
from tasks.cli.output import note
from tools.errors import ToolError
from worker.errors import RunwrightError
from worker.store.database import explain

app = typer.Typer(
    name="runwright",
    help="Carry long-running LLM runs to their end.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _part in (
    local,
    run_commands,
    change_commands,
    status_commands,
    batch_commands,
    assistant_commands,
    tool_commands,
    approval_commands,
    care_commands,
    schema_commands,
):
    app.add_typer(_part.app)


def main() -> None:
    """Run the command line; what a user did wrong is one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character is no reason to fail
    _log_to_stderr()
    try:
        app(prog_name="runwright")
    except (RunwrightError, ToolError) as error:
        _stop(str(error))
    except SQLAlchemyError as error:
        _stop(explain(error))
    except UnicodeEncodeError:
        _stop("an argument holds characters that are not UTF-8")
    except OSError as error:
        _stop(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _log_to_stderr() -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _stop(message: str) -> NoReturn:
    for line in message.splitlines():
        note(f"runwright: {line}")
    raise SystemExit(2)


if __name__ == "__main__":
    main()
