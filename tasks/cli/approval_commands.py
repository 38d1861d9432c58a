"""Approvals from the shell: what waits for a person, and the answers."""

from typing import Annotated

import typer

from tasks import approvals
from tasks.cli.output import JsonOption
from tasks.cli.questions import ByOption, CallArgument, LimitOption, RunArgument, list_questions, tell, who

app = typer.Typer(name="approvals", help="Tool calls that wait for a person to agree.", no_args_is_help=True)

_HINT = "`runwright approvals approve RUN` lets a call run, `runwright approvals deny RUN --reason TEXT` does not"


@app.command("list")
def list_approvals(limit: LimitOption = 100, as_json: JsonOption = False) -> None:
    """List the calls that wait, those that expire first at the front."""
    list_questions("approval", limit, as_json=as_json, hint=_HINT)


@app.command()
def approve(
    run_id: RunArgument,
    call_id: CallArgument = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Kept with the call.")] = None,
    by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a call run; the run goes on when nothing of it waits any more."""
    tell(approvals.approve(run_id, call_id, by=who(by), reason=reason), as_json=as_json)


@app.command()
def deny(
    run_id: RunArgument,
    call_id: CallArgument = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="What the model reads.")] = None,
    by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a call from running; the model is told so and goes on."""
    tell(approvals.deny(run_id, call_id, by=who(by), reason=reason), as_json=as_json)
