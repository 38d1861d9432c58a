"""Tools from the shell: what there is, a call without a model, and calls in doubt."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from tasks import approvals
from tasks.cli.output import JsonOption, emit, note, say
from tasks.cli.questions import ByOption, CallArgument, LimitOption, RunArgument, list_questions, tell, who
from tools.context import ToolContext
from tools.execution import Executor
from tools.outcome import Outcome
from tools.registry import Registry
from worker.errors import UsageError
from worker.settings import Settings

app = typer.Typer(name="tools", help="Functions that models may call.", no_args_is_help=True)

_HINT = "look at the tool's other side, then: `runwright tools answer RUN --output TEXT` or `--error TEXT`"


@app.command("list")
def list_tools(as_json: JsonOption = False) -> None:
    """List the tools that assistants can be given."""
    registry = Registry.load(Settings.from_env().tool_modules)
    if as_json:
        emit(
            [
                {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                    "effect": tool.effect,
                    "approval": tool.approval,
                    "isolate": tool.isolate,
                    "timeout": tool.timeout,
                }
                for tool in registry.tools
            ]
        )
        return
    for tool in registry.tools:
        say(f"{tool.name}({', '.join(tool.parameters.get('properties', ()))})  {tool.description}")


@app.command()
def call(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    arguments: Annotated[str, typer.Argument(metavar="JSON", help='Such as \'{"expression": "2 + 2"}\'.')] = "{}",
    as_json: JsonOption = False,
) -> None:
    """Call a tool as a model would; exit code 1 if it fails."""
    settings = Settings.from_env()
    registry = Registry.load(settings.tool_modules)
    if registry.get(name) is None:
        raise UsageError(f"no tool {name!r}; there are: {', '.join(registry.names())}")
    try:
        json.loads(arguments)
    except ValueError as error:
        raise UsageError(f"the arguments are not JSON: {error}") from None
    outcome = asyncio.run(_call(settings, registry, name, arguments))
    if as_json:
        emit({"name": name, "status": outcome.status, "error": outcome.error, "output": outcome.output})
    else:
        say(outcome.output)
    if outcome.status == "failed":
        note(f"{name} failed: {outcome.error} {outcome.detail}".rstrip())
        raise typer.Exit(1)


@app.command("in-doubt")
def list_in_doubt(limit: LimitOption = 100, as_json: JsonOption = False) -> None:
    """List interrupted calls that may have taken effect or not; with RUNWRIGHT_IN_DOUBT=ask a person says which."""
    list_questions("in_doubt", limit, as_json=as_json, hint=_HINT)


@app.command()
def answer(
    run_id: RunArgument,
    call_id: CallArgument = None,
    *,
    output: Annotated[str | None, typer.Option(metavar="TEXT", help="It took effect: what it returned.")] = None,
    error: Annotated[str | None, typer.Option(metavar="TEXT", help="It failed: what the model reads.")] = None,
    by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a call in doubt has come to; the run goes on with it, and the tool is not called again."""
    tell(approvals.answer(run_id, call_id, by=who(by), output=output, error=error), as_json=as_json)


async def _call(settings: Settings, registry: Registry, name: str, arguments: str) -> Outcome:
    executor = Executor(registry, timeout=settings.tool_timeout)
    tool = registry.get(name)
    limit = (tool.timeout if tool else None) or settings.tool_timeout
    context = ToolContext(
        run_id="cli",
        thread_id="cli",
        call_id="cli",
        attempt=1,
        # A little beyond the tool's own limit, so that it is the tool's limit that is told.
        deadline=datetime.now(UTC) + timedelta(seconds=limit + 5),
        metadata={},
        data=settings.tool_data,
    )
    try:
        return await executor.call(name, arguments, context, [name])
    finally:
        await executor.close()
