"""What somebody who waits for a run should know: that no worker is running, that the run waits for a person."""

from rich.console import Console

from tasks.cli.output import clean
from worker.store import reading
from worker.store.database import Database
from worker.store.reading import RunView

NO_WORKER = "no worker is running; start one with `runwright up` or `celery -A worker.app worker`"
LISTS = {"approval": "runwright approvals list", "in_doubt": "runwright tools in-doubt"}


def hint(database: Database, console: Console) -> None:
    """Say so where no worker is running: waiting would be in vain."""
    with database.read() as connection:
        if not reading.living_workers(connection):
            console.print(clean(NO_WORKER), soft_wrap=True)


def waits_for(view: RunView) -> str | None:
    """Say that a run waits for a person and where the questions are listed; None where it does not."""
    if view.ended or view.cancel_requested_at is not None:
        return None
    open_ones = {call["question"] for call in view.tool_calls if call["question"] and call["decision"] is None}
    lists = " and ".join(f"`{LISTS[kind]}`" for kind in sorted(open_ones))
    return f"waits for a person: {lists}" if lists else None
