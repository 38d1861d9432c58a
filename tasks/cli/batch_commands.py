"""Batches of documents from the shell."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from tasks import batches
from tasks.bulk import FAILED, Change
from tasks.cli.change_commands import change_all
from tasks.cli.output import ERR, OUT, JsonOption, dollars, emit, note, number, say
from tasks.cli.progress import watch
from tasks.cli.run_commands import OnEndOption
from tasks.cli.tables import batches_table, progress_json, results_table
from worker.broker.wire import DEFAULT_QUEUE
from worker.producer import producer
from worker.store import batches as store
from worker.store.batches import Progress
from worker.store.choosing import Chosen

app = typer.Typer(name="batch", help="One run for each of many documents.", no_args_is_help=True)

_BatchId = Annotated[str, typer.Argument(metavar="ID")]


@app.command("submit")
def submit_batch(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders and globs.")],
    *,
    assistant: Annotated[str, typer.Option(help="The assistant that is asked.")],
    prompt: Annotated[str, typer.Option(help="What to do with each document.")],
    queue: Annotated[str, typer.Option(help="The queue whose workers may take the runs.")] = DEFAULT_QUEUE,
    priority: Annotated[int, typer.Option(help="From 0 to 9; the higher goes first.")] = batches.PRIORITY,
    budget: Annotated[
        float | None, typer.Option(metavar="USD", help="Begin no further run once this much has been spent.")
    ] = None,
    on_end: OnEndOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would take.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Watch until all have ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask an assistant about each document, each on a thread of its own."""
    documents = batches.read(batches.find(paths))
    if dry_run:
        _tell_estimate(batches.estimate(producer(), assistant, prompt, documents), as_json=as_json)
        return
    how: dict[str, Any] = {"queue": queue, "priority": priority, "on_end": on_end, "budget_usd": budget}
    batch_id = batches.submit(producer(), assistant, prompt, documents, **how)
    if wait:
        note(f"batch {batch_id}")
        _watch(batch_id, as_json=as_json, results=True)
    elif as_json:
        emit(progress_json(_progress(batch_id)))
    else:
        progress = _progress(batch_id)
        say(f"batch {batch_id}: {progress.documents} documents, {progress.unreadable} of them unreadable")
        note(f"watch it with `runwright batch watch {batch_id}`")


def _tell_estimate(found: batches.Estimate, *, as_json: bool) -> None:
    if as_json:
        emit(asdict(found))
        return
    say(f"{found.documents} documents for {found.model}")
    say(f"{number(found.input_tokens)} input and {number(found.output_tokens)} output tokens")
    say(
        f"expected cost: {dollars(found.cost_usd) if found.cost_usd is not None else 'unknown, the model has no price'}"
    )
    note(found.assumption)
    for one in found.unreadable:
        note(f"unreadable: {one['document']}: {one['error']}")


@app.command("list")
def list_batches(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 20, as_json: JsonOption = False
) -> None:
    """List the newest batches, newest first."""
    with producer().database.read() as connection:
        found = store.newest(connection, limit)
    if as_json:
        emit([progress_json(one) for one in found])
    elif found:
        OUT.print(batches_table(found, OUT.width))
    else:
        note("no batches")


@app.command()
def show(batch_id: _BatchId, as_json: JsonOption = False) -> None:
    """Show where a batch stands, document by document."""
    _tell(_progress(batch_id), as_json=as_json, results=True)


@app.command("watch")
def watch_batch(batch_id: _BatchId, as_json: JsonOption = False) -> None:
    """Watch a batch until all of it has ended; exit code 1 unless all documents completed."""
    _watch(batch_id, as_json=as_json, results=False)


@app.command()
def budget(
    batch_id: _BatchId,
    usd: Annotated[float | None, typer.Argument(metavar="[USD]", help="US dollars; without it there is none.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Change what a batch may cost before no further run of it is begun; raising it lets them go on."""
    held_back = batches.change_budget(producer(), batch_id, usd)
    if as_json:
        emit({"id": batch_id, "budget_usd": usd, "held_back": held_back})
    else:
        amount = "no budget" if usd is None else f"a budget of {dollars(usd)}"
        say(f"batch {batch_id}: {amount}" + ("; it is held back" if held_back else ""))


@app.command()
def cancel(batch_id: _BatchId, as_json: JsonOption = False) -> None:
    """Ask for a cancel of every run that has not ended: `runwright cancel --batch ID`."""
    change_all(Change.CANCEL, Chosen(batch_id=batch_id), as_json=as_json)


@app.command()
def retry(
    batch_id: _BatchId,
    failed: Annotated[bool, typer.Option("--failed", help="Only failed and expired runs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Reopen the runs that ended without a result: `runwright retry --batch ID`."""
    change_all(Change.RETRY, Chosen(batch_id=batch_id, statuses=FAILED if failed else ()), as_json=as_json)


@app.command()
def export(
    batch_id: _BatchId,
    to: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where; without it results/ID.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write results.jsonl and results.csv."""
    written = batches.export(producer().database, batch_id, to or Path("results", batch_id))
    if as_json:
        emit({"jsonl": str(written[0]), "csv": str(written[1])})
    else:
        for path in written:
            say(str(path))


def _watch(batch_id: str, *, as_json: bool, results: bool) -> None:
    progress = watch(producer().database, batch_id, ERR)
    _tell(progress, as_json=as_json, results=results)
    if progress.completed < progress.documents:
        raise typer.Exit(1)


def _tell(progress: Progress, *, as_json: bool, results: bool) -> None:
    found = list(batches.results(producer().database, progress.id)) if results else []
    if as_json:
        told = progress_json(progress)
        emit({**told, "results": [asdict(one) for one in found]} if results else told)
        return
    if results:
        OUT.print(results_table(found, OUT.width))
    cost = f"cost {dollars(progress.cost_usd)}"
    budget = f" of a budget of {dollars(progress.budget_usd)}" if progress.budget_usd is not None else ""
    say(f"batch {progress.id}: {progress.completed} of {progress.documents} documents completed, {cost}{budget}")
    if progress.held_back:
        say(f"its queued runs are held back: {progress.held_back}")


def _progress(batch_id: str) -> Progress:
    with producer().database.read() as connection:
        return store.progress(connection, batch_id)
