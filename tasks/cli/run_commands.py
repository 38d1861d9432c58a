"""Runs from the shell: submit, show, list."""

import contextlib
import math
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from tasks import runs
from tasks.cli.following import follow
from tasks.cli.output import ERR, OUT, JsonOption, emit, note, say
from tasks.cli.run_tables import run_details, runs_table
from tasks.cli.timeline import timeline
from tasks.cli.waiting import hint, waits_for
from tools.errors import Unreadable
from tools.extract import SUFFIXES, extract_text, read_bytes
from tools.text import decode, storable
from worker.broker.wire import DEFAULT_PRIORITY, DEFAULT_QUEUE
from worker.errors import UsageError
from worker.lifecycle import Status
from worker.producer import producer
from worker.store import batches, groups, reading
from worker.store.reading import RunView

app = typer.Typer()

_LOOK = 2.0  # seconds after which a waiting command looks whether a person is asked

OnEndOption = Annotated[
    str | None,
    typer.Option(metavar="TASK[@QUEUE]", help="Celery task to send when it has ended; by default to celery."),
]


@app.command()
def submit(
    text: Annotated[str, typer.Argument(metavar="TEXT|-|@FILE", help="The input itself, - for stdin, or @FILE.")],
    *,
    assistant: Annotated[str, typer.Option(help="The assistant that is asked.")],
    thread: Annotated[str | None, typer.Option(help="Go on in this thread; without it the run gets a new one.")] = None,
    queue: Annotated[str, typer.Option(help="The queue whose workers may take the run.")] = DEFAULT_QUEUE,
    priority: Annotated[int, typer.Option(help="From 0 to 9; the higher goes first.")] = DEFAULT_PRIORITY,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key is the same run.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Kept with the run.")] = None,
    on_end: OnEndOption = None,
    on_busy: Annotated[
        runs.OnBusy, typer.Option(metavar="enqueue|reject", help="While an earlier run of the thread goes on.")
    ] = "enqueue",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; exit code 1 unless completed.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Wait, and show what happens as `runwright watch` does.")
    ] = False,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds that --wait or --watch waits at most.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask an assistant once."""
    if timeout is not None and not (wait or watch):
        raise UsageError("--timeout says how long --wait or --watch waits; give it with one of them")
    handle = runs.submit(
        assistant=assistant,
        input=_input(text),
        thread=thread,
        queue=queue,
        priority=priority,
        idempotency_key=key,
        metadata=_metadata(metadata or ()),
        on_end=on_end,
        on_busy=on_busy,
    )
    if watch:
        _exit(follow(handle, after=None, timeout=timeout, as_json=as_json))
    elif wait:
        _finish(handle, timeout, as_json=as_json)
    elif as_json:
        emit({"id": handle.id, "thread_id": handle.thread_id, "status": handle.status()})
    else:
        say(f"run {handle.id} on thread {handle.thread_id}: {handle.status()}")


def _input(given: str) -> str:
    if given == "-":
        return storable(sys.stdin.buffer.read().decode("utf-8", "replace"))
    if not given.startswith("@"):
        return storable(given)
    path = Path(given[1:])
    try:
        return extract_text(path) if path.suffix.lower() in SUFFIXES else decode(read_bytes(path))
    except (Unreadable, ValueError) as error:
        raise UsageError(f"{path}: {error}") from None


def _metadata(given: Iterable[str]) -> dict[str, str]:
    found = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise UsageError(f"--metadata {pair!r}: write it as NAME=VALUE")
        found[name] = value
    return found


def _finish(handle: runs.RunHandle, timeout: float | None, *, as_json: bool) -> None:
    hint(producer().database, ERR)
    with ERR.status(f"run {handle.id}"):
        view = _waited(handle, timeout)
    if not view.ended:
        note(f"run {handle.id} is still {view.status} after {timeout:g} s; it goes on: `runwright show {handle.id}`")
    if as_json:
        emit(view.as_json())
    else:
        OUT.print(run_details(view))
    _exit(view)


def _exit(view: RunView) -> None:
    if view.status is not Status.COMPLETED:
        raise typer.Exit(1)


def _waited(handle: runs.RunHandle, timeout: float | None) -> RunView:
    """Return the run at its end or after the time; say so once when it waits for a person, who may sit right here."""
    ends_at = math.inf if timeout is None else time.monotonic() + timeout
    told = False
    while True:
        with contextlib.suppress(TimeoutError):
            return handle.wait(max(0.0, min(_LOOK, ends_at - time.monotonic())))
        view = handle.result()
        if view.ended or time.monotonic() >= ends_at:
            return view
        waiting = None if told else waits_for(view)
        if waiting:
            note(waiting)
            told = True


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(metavar="ID")],
    events: Annotated[bool, typer.Option("--events", help="Also what happened to it and when, in order.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one run with its answer, tool calls and cost."""
    with producer().database.read() as connection:
        view = reading.run(connection, run_id)
        happened = reading.events(connection, run_id) if events else []
        tried = reading.attempts(connection, run_id) if events else []
        held_back = groups.why(connection, run_id)
        refused = reading.refused(connection, run_id)
        next_look = reading.next_look(connection, run_id)
    if as_json:
        emit(
            {
                **view.as_json(),
                "held_back": held_back + refused,
                "next_look_at": next_look.isoformat() if next_look else None,
                **({"events": happened, "attempt_rows": tried} if events else {}),
            }
        )
        return
    OUT.print(run_details(view))
    for line in (*(f"held back: {reason}" for reason in held_back), *refused):
        say(line)
    if next_look:
        say(f"parked: it goes on at the provider, and is looked at again at {next_look:%Y-%m-%d %H:%M:%S} UTC")
    if events:
        OUT.print(timeline(view, happened, tried))


@app.command("list")
def list_runs(
    status: Annotated[list[Status] | None, typer.Option(help="Only runs in this status; may be given again.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only runs of this batch.")] = None,
    thread: Annotated[str | None, typer.Option(help="Only runs of this thread.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the newest runs, newest first."""
    with producer().database.read() as connection:
        if batch:
            batches.progress(connection, batch)  # an unknown batch is an error, not an empty list
        views = reading.runs(connection, statuses=status or (), batch_id=batch, thread_id=thread, limit=limit)
    if as_json:
        emit([view.as_json() for view in views])
    elif views:
        OUT.print(runs_table(views, OUT.width))
    else:
        note("no runs")
