"""Cancel and retry from the shell: runs by their ids, or all that a choice holds."""

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from tasks import bulk, runs
from tasks.bulk import Change
from tasks.cli.bar import bar
from tasks.cli.output import JsonOption, emit, note, say
from worker.errors import UsageError
from worker.lifecycle import TERMINAL, Status
from worker.producer import producer
from worker.store.choosing import Chosen

app = typer.Typer()

_SHOWN = 20
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

_Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID...]")]
_Batch = Annotated[str | None, typer.Option(metavar="ID", help="All of this batch.")]
_Status = Annotated[list[Status] | None, typer.Option(help="All in this status; may be given again.")]
_Error = Annotated[str | None, typer.Option(metavar="CODE", help="All that ended with this error.")]
_Assistant = Annotated[str | None, typer.Option(metavar="NAME", help="All of this assistant.")]
_Queue = Annotated[str | None, typer.Option(help="All of this queue.")]
_Since = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION", help="All that ended, or if they have not, were submitted in the last 90m, 2h, 3d."
    ),
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say which runs it would be.")]
_StartOver = Annotated[
    bool, typer.Option("--start-over", help="Also where it could repeat a call of a `once` tool; only with ids.")
]


@app.command()
def cancel(
    ids: _Ids = None,
    *,
    batch: _Batch = None,
    status: _Status = None,
    error: _Error = None,
    assistant: _Assistant = None,
    queue: _Queue = None,
    since: _Since = None,
    dry_run: _DryRun = False,
    as_json: JsonOption = False,
) -> None:
    """Ask for a cancel of runs by id or by choice; a running one ends when its provider's run has."""
    chosen = _chosen(status, since, batch_id=batch, error=error, assistant=assistant, queue=queue)
    if _by_id(ids, chosen, dry_run=dry_run):
        _each(Change.CANCEL, ids or (), runs.cancel, as_json=as_json)
    else:
        change_all(Change.CANCEL, chosen, dry_run=dry_run, as_json=as_json)


@app.command()
def retry(
    ids: _Ids = None,
    *,
    batch: _Batch = None,
    status: _Status = None,
    error: _Error = None,
    assistant: _Assistant = None,
    queue: _Queue = None,
    since: _Since = None,
    dry_run: _DryRun = False,
    start_over: _StartOver = False,
    as_json: JsonOption = False,
) -> None:
    """Reopen ended runs by id or by choice for one further attempt; completed ones are refused."""
    chosen = _chosen(status, since, batch_id=batch, error=error, assistant=assistant, queue=queue)
    if _by_id(ids, chosen, dry_run=dry_run):
        _each(
            Change.RETRY,
            ids or (),
            lambda run_id: runs.retry(run_id, start_over=start_over).status(),
            as_json=as_json,
        )
    elif start_over:
        raise UsageError("--start-over is decided run by run; name them by their ids")
    else:
        change_all(Change.RETRY, chosen, dry_run=dry_run, as_json=as_json)


def change_all(change: Change, chosen: Chosen, *, dry_run: bool = False, as_json: bool = False) -> None:
    """Cancel or retry all that the choice holds, and say how many those were; raises UsageError."""
    door, chosen = producer(), bulk.choice(change, chosen)
    matched = bulk.count(door, chosen)
    if dry_run:
        _tell_dry_run(change, chosen, matched, as_json=as_json)
        return
    note(f"{matched} runs to {change}")
    with bar(change, matched) as done:
        changed = bulk.apply(door, change, chosen, lambda: done(1))
    if as_json:
        emit({"matched": matched, "changed": changed.count, "refused": changed.refused})
        return
    say(f"{changed.count} runs {'asked to cancel' if change is Change.CANCEL else 'reopened'}")
    if changed.refused:
        note(f"{len(changed.refused)} refused, such as: {next(iter(changed.refused.values()))}")


def _tell_dry_run(change: Change, chosen: Chosen, matched: int, *, as_json: bool) -> None:
    found = bulk.first(producer(), change, chosen, _SHOWN)
    if as_json:
        shown = [{"id": one.run_id, "status": one.status, "error": one.error_code} for one in found]
        emit({"matched": matched, "runs": shown})
        return
    for one in found:
        say(f"{one.run_id}  {one.status}  {one.error_code or ''}".rstrip())
    if matched > len(found):
        say("…")
    say(f"{matched} runs to {change}; nothing was changed")


def _chosen(status: list[Status] | None, since: str | None, **what: str | None) -> Chosen:
    return Chosen(statuses=status or (), since=None if since is None else _duration(since), **what)


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if not match:
        raise UsageError(f"--since {text!r}: write it as a number and s, m, h or d, such as 90m")
    return float(match[1]) * _SECONDS[match[2]]


def _by_id(ids: list[str] | None, chosen: Chosen, *, dry_run: bool) -> bool:
    """Tell whether runs are named; raises UsageError unless there are either ids or a choice."""
    if bool(ids) == (chosen != Chosen()):
        raise UsageError("give either the ids of runs or what to choose them by, such as --batch ID or --status failed")
    if ids and dry_run:
        raise UsageError("--dry-run says which runs a choice holds; these are named")
    return bool(ids)


def _each(change: Change, ids: Iterable[str], act: Callable[[str], Status], *, as_json: bool) -> None:
    """Do all that can be done, then report what could not."""
    done: list[dict[str, Any]] = []
    wrong: list[str] = []
    for run_id in dict.fromkeys(ids):
        try:
            done.append({"id": run_id, "status": act(run_id)})
        except UsageError as error:
            wrong.append(str(error))
    if as_json:
        emit(done)
    else:
        for one in done:
            say(changed(change, one))
    if wrong:
        raise UsageError("\n".join(wrong))


def changed(change: Change, one: dict[str, Any]) -> str:
    """Return the line about a run that was changed; its worker carries out a cancel, so it may not have ended."""
    waits = change is Change.CANCEL and one["status"] not in TERMINAL
    return f"run {one['id']}: {one['status']}{', asked to cancel' if waits else ''}"
