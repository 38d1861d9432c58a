"""The commands by name: listing them imports none of them, and running one imports its module only."""

import gc
import importlib
import io
import sys
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup


class Listed(NamedTuple):
    """A command, or a group of them, as the list shows it: its module, and the first paragraph of its own help."""

    module: str
    help: str


COMMANDS = {
    "up": Listed("local", "Start an embedded server, a worker and the scheduler, and stop them with Ctrl-C."),
    "demo": Listed("local", "Run the main job over samples/: submit a batch, watch it, show what came out."),
    "submit": Listed("run_commands", "Ask an assistant once."),
    "show": Listed("run_commands", "Show one run with its answer, tool calls and cost."),
    "watch": Listed(
        "watch_commands",
        "Show what happens to a run, and what the model says as it says it; exit code 1 unless it completes.",
    ),
    "list": Listed("run_commands", "List the newest runs, newest first."),
    "cancel": Listed(
        "change_commands",
        "Ask for a cancel of runs by id or by choice; a running one ends when its provider's run has.",
    ),
    "retry": Listed(
        "change_commands", "Reopen ended runs by id or by choice for one further attempt; completed ones are refused."
    ),
    "status": Listed(
        "status_commands", "Show queues, workers, pauses, questions to people, and the errors of the last hour."
    ),
    "pause": Listed(
        "status_commands", "Begin no queued runs of a queue, an assistant or a batch; what was begun goes on."
    ),
    "resume": Listed("status_commands", "Let the queued runs of what was paused begin again."),
    "batch": Listed("batch_commands", "One run for each of many documents."),
    "assistants": Listed("assistant_commands", "Named configurations that runs ask."),
    "tools": Listed("tool_commands", "Functions that models may call."),
    "backends": Listed(
        "backend_commands",
        "Show the protocols, and each server that assistants use: its key, and what it is seen to speak.",
    ),
    "approvals": Listed("approval_commands", "Tool calls that wait for a person to agree."),
    "doctor": Listed(
        "care_commands", "Prove what must hold in the tables and at the provider; exit code 1 when something is wrong."
    ),
    "cleanup": Listed(
        "care_commands",
        "Delete old events and, here and at the provider, conversations that no run has needed for long.",
    ),
    "migrate": Listed("schema_commands", "Create the tables in DATABASE_URL, or bring them to this version's schema."),
}


class Commands(TyperGroup):
    """Puts a command in its place in the list when it is to be run."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import what this command line needs."""
        if args[0] in COMMANDS:
            gc.disable()  # imports make half a million objects and no garbage; looking for it takes a third of the time
            running = _running()
            self.add_command(running.command(args[0], COMMANDS[args[0]].module), args[0])
            ctx.with_resource(running.logs_on_stderr())
            gc.freeze()
            gc.enable()
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="runwright",
    cls=Commands,
    help="Carry long-running LLM runs to their end.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _listed in COMMANDS.items():
    app.command(_name, help=_listed.help)(lambda: None)


def main() -> None:
    """Run the command line; what a user did wrong is one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character is no reason to fail
    try:
        sys.exit(app(prog_name="runwright", standalone_mode=False))
    except Exception as error:  # noqa: BLE001 - what is no error of a user is raised again
        _running().end(error)


def _running() -> Any:
    return importlib.import_module("tasks.cli.running")


if __name__ == "__main__":
    main()
