"""How questions to people look, and who answers them."""

import getpass
import os
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from tasks import approvals
from tasks.cli.output import OUT, clean, emit, note, say
from worker.store.deciding import Decided, Kind, Question

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run that asks.")]
CallArgument = Annotated[
    str | None, typer.Argument(metavar="[CALL]", help="The call; may be left out where the run asks about one only.")
]
ByOption = Annotated[str | None, typer.Option(metavar="NAME", help="Who decides; without it your login name.")]
_NONE: dict[Kind, str] = {"approval": "no calls wait for approval", "in_doubt": "no calls in doubt"}
LimitOption = Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")]


def who(by: str | None) -> str:
    """Return the name that was given, else the login name."""
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user without a name, as in many containers
        return f"user {os.getuid()}"


def list_questions(kind: Kind, limit: int, *, as_json: bool, hint: str) -> None:
    """Show what people are asked, the arguments whole: nobody should agree to what they cannot see."""
    found = approvals.pending(kind, limit=limit)
    if as_json:
        emit([asdict(one) for one in found])
        return
    for one in found:
        OUT.print(_shown(one))
    note(hint if found else _NONE[kind])


def _shown(one: Question) -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_column()
    facts.add_column(overflow="fold")
    times = {"asked": one.asked_at, "decide by": one.decide_by, "began": one.began_at}
    told = {
        "run": one.run_id,
        "call": one.call_id,
        "tool": one.tool,
        "arguments": one.arguments,
        "assistant": one.assistant,
        "thread": one.thread_id,
        **{name: f"{at:%Y-%m-%d %H:%M:%S} UTC" for name, at in times.items() if at is not None},
    }
    for name, value in told.items():
        facts.add_row(name, clean(value))
    facts.add_row()
    return facts


def tell(decided: Decided, *, as_json: bool) -> None:
    """Say what was decided."""
    if as_json:
        emit({key: value for key, value in asdict(decided).items() if key != "queue"})
    else:
        say(f"run {decided.run_id}: call {decided.call_id} ({decided.tool}) {decided.decision} by {decided.by}")
