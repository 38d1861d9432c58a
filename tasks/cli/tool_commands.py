"""Tools from the shell: what there is, and a call without a model."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from tasks.cli.output import JsonOption, emit, note, say
from tools.context import ToolContext
from tools.execution import Executor
from tools.outcome import Outcome
from tools.registry import Registry
from worker.errors import UsageError
from worker.settings import Settings

app = typer.Typer(name="tools", help="Functions that models may call.", no_args_is_help=True)


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
