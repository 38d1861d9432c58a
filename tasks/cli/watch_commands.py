"""A run as it goes on, from the shell: watch."""

from typing import Annotated

import typer

from tasks import runs
from tasks.cli.following import follow
from worker.lifecycle import Status

app = typer.Typer()


@app.command()
def watch(
    run_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    after: Annotated[
        str | None, typer.Option(metavar="EVENT", help="Only what comes after the event with this id.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds to watch at most.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on a line for each event.")] = False,
) -> None:
    """Show what happens to a run, and what the model says as it says it; exit code 1 unless it completes."""
    view = follow(runs.handle(run_id), after=after, timeout=timeout, as_json=as_json)
    if view.status is not Status.COMPLETED:
        raise typer.Exit(1)
