"""Batches of documents: find and read them, make each one a run on its own thread, estimate, collect what came out."""

import csv
import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from tasks import runs
from tasks.hooks import hook
from tools.errors import Unreadable
from tools.extract import SUFFIXES, extract_text
from tools.text import storable
from worker import tokens
from worker.assistants import windows
from worker.assistants.prices import Prices
from worker.broker.wire import DEFAULT_QUEUE
from worker.care.maintenance import ring_due
from worker.errors import UsageError
from worker.producer import Producer
from worker.response import Usage
from worker.store import assistants, batches, budgets, reading
from worker.store.database import Database
from worker.store.submitting import Accepted

PRIORITY = 4
"""Below that of single runs, so that who waits for an answer does not wait for a batch."""

_TRANSACTION = 100
_PAGE = 300
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Document:
    """One input: its text, or the reason why there is none."""

    name: str
    text: str | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a batch would take: tokens by four bytes each, cost null where the model has no price."""

    documents: int
    unreadable: list[dict[str, str | None]]
    model: str
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    assumption: str


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one document; status `unreadable` where it has no run."""

    document: str
    status: str
    answer: str | None
    error: str | None
    tool_calls: list[dict[str, Any]]
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    seconds: float | None
    run_id: str | None


def find(paths: Sequence[str]) -> list[Path]:
    """Return the files of paths, folders and globs, each once, in the order given; UsageError if one leads nowhere."""
    found: dict[Path, Path] = {}
    for given in paths:
        for path in _matches(given):
            for file in _files(path) if path.is_dir() else [path]:
                found.setdefault(file.resolve(), file)
    if not found:
        raise UsageError(
            f"no documents in {', '.join(paths)}; files that can be read end in {' '.join(sorted(SUFFIXES))}"
        )
    return list(found.values())


def _matches(given: str) -> list[Path]:
    if os.path.lexists(given):
        return [Path(given)]
    if not glob.has_magic(given):
        raise UsageError(f"{given}: there is no such file or folder")
    matches = sorted(glob.glob(given, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not matches:
        raise UsageError(f"{given}: no file matches")
    return [Path(match) for match in matches]


def _files(folder: Path) -> Iterator[Path]:
    """Walk the files of a folder that can be read; hidden ones and links to folders are left out."""
    for at, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(at, name)


def read(paths: Sequence[Path]) -> Iterator[Document]:
    """Read one document after the other; their names begin below the folder that holds all of them."""
    absolute = [path.absolute() for path in paths]
    root = os.path.commonpath([path.parent for path in absolute])
    for path in absolute:
        name = storable(path.relative_to(root).as_posix())
        try:
            yield Document(name, extract_text(path))
        except Unreadable as error:
            yield Document(name, None, str(error))


def message(prompt: str, document: Document) -> str:
    """Return what the model reads: the prompt, and the document between tags that it cannot close by itself."""
    text = document.text or ""
    tag = next(tag for tag in _tags() if f"</{tag}" not in text)
    name = document.name.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
    return f'{prompt.strip()}\n\n<{tag} name="{" ".join(name.split())}">\n{text}\n</{tag}>'


def _tags() -> Iterator[str]:
    yield "document"
    for number in range(2, 1_000_000):
        yield f"document{number}"


def estimate(producer: Producer, assistant: str, prompt: str, documents: Iterable[Document]) -> Estimate:
    """Say what a batch would take, without submitting it."""
    with producer.database.read() as connection:
        config = assistants.require(connection, assistant).config
    steps = 2 if config.get("tools") else 1
    answer = min(tokens.ANSWER, config.get("max_output_tokens") or tokens.ANSWER)
    readable, given, unreadable = 0, 0, []
    for document in documents:
        if document.text is None:
            unreadable.append({"document": document.name, "error": document.error})
            continue
        readable += 1
        asked = (config.get("instructions") or "") + message(prompt, document)
        given += tokens.guessed(len(asked.encode(errors="replace")))
    model, total_in, total_out = str(config["model"]), given * steps, readable * steps * answer
    full = Usage(total_in, total_out, Prices.load(producer.settings.prices).cost(model, total_in, total_out))
    assumed = f"estimated: 4 bytes a token, {steps} model step(s) a document, {answer} output tokens a step"
    window = windows.of(config)
    return Estimate(
        documents=readable,
        unreadable=unreadable,
        model=model,
        input_tokens=total_in,
        output_tokens=total_out,
        cost_usd=windows.charged(full, config).cost_usd,
        assumption=f"{assumed}, {window.discount:.0%} off for completion_window" if window else assumed,
    )


def submit(
    producer: Producer,
    assistant: str,
    prompt: str,
    documents: Iterable[Document],
    *,
    queue: str = DEFAULT_QUEUE,
    priority: int = PRIORITY,
    on_end: Mapping[str, Any] | str | None = None,
    budget_usd: float | None = None,
) -> str:
    """Make every readable document a run and return the batch's id; raises UsageError before anything is written.

    A hundred documents are one transaction, so a submit that is broken off leaves whole documents behind; such a batch
    never counts as ended. on_end is as in RunRequest, told {"id", "statuses", "documents"} when all runs have ended.
    It is sent once for each end: runs that are tried again make a new one. Once what is known of its cost has reached
    budget_usd, no further run of it is begun until change_budget() raises it.
    """
    kept = hook(on_end)
    if not prompt.strip():
        raise UsageError("the prompt is empty; say what is to be done with each document")
    prompt = storable(prompt)
    with producer.database.read() as connection:
        version = assistants.require(connection, assistant)
    ring = producer.doorbell.ring
    ask = partial(runs.RunRequest, assistant=assistant, queue=queue, priority=priority)
    batch_id, position = "", 0
    for chunk in _chunks(documents, _TRANSACTION):
        with producer.database.write() as connection:
            batch_id = batch_id or batches.create(connection, assistant, prompt, kept, budget_usd)
            asked = [
                ask(input=message(prompt, one), metadata={"document": one.name}, batch_id=batch_id)
                for one in chunk
                if one.text is not None
            ]
            accepted = iter(runs.accept(producer, connection, asked, version))
            rows = [_row(at, one, accepted) for at, one in enumerate(chunk, position)]
            batches.add(connection, batch_id, rows)
        position += len(chunk)
        ring([queue])
    if not batch_id:
        raise UsageError("no documents: a batch needs at least one")
    with producer.database.write() as connection:
        batches.seal(connection, batch_id)
    return batch_id


def _row(position: int, document: Document, accepted: Iterator[Accepted]) -> batches.DocumentRow:
    if document.text is None:
        return batches.DocumentRow(position, document.name, None, None, document.error)
    return batches.DocumentRow(position, document.name, len(document.text), next(accepted).id, document.error)


def change_budget(producer: Producer, batch_id: str, budget_usd: float | None) -> bool:
    """Set, raise, lower or, with None, end the budget of a batch; tells whether it is held back now.

    Raises UsageError for an unknown batch and for what is no amount.
    """
    ring = producer.doorbell.ring
    with producer.database.write() as connection:
        held_back = budgets.change(connection, batch_id, budget_usd)
    ring_due(producer.database, ring)
    return held_back


def results(database: Database, batch_id: str) -> Iterator[Result]:
    """Give what came of each document, in order; UsageError for an unknown batch."""
    with database.read() as connection:
        rows = batches.documents(connection, batch_id)
    for page in _chunks(rows, _PAGE):
        with database.read() as connection:
            views = reading.by_ids(connection, [row.run_id for row in page if row.run_id])
        for row in page:
            yield _result(row.name, views[row.run_id]) if row.run_id else _unreadable(row)


def _unreadable(row: batches.DocumentRow) -> Result:
    return Result(row.name, "unreadable", None, row.error, [], None, None, None, None, None)


def _result(name: str, view: reading.RunView) -> Result:
    error = f"{view.error['code']}: {view.error['message']}" if view.error else None
    return Result(
        document=name,
        status=view.status.value,
        answer=view.output_text,
        error=error,
        tool_calls=view.tool_calls,
        input_tokens=view.usage["input_tokens"],
        output_tokens=view.usage["output_tokens"],
        cost_usd=view.cost_usd,
        seconds=view.seconds,
        run_id=view.id,
    )


def export(database: Database, batch_id: str, folder: Path) -> tuple[Path, Path]:
    """Write results.jsonl and results.csv into the folder and return their paths; raises UsageError."""
    found = results(database, batch_id)
    first = next(found, None)  # an unknown batch is told before a file is touched
    jsonl, table = folder / "results.jsonl", folder / "results.csv"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Excel takes a CSV file for UTF-8 only with a byte order mark.
        with jsonl.open("w", encoding="utf-8") as lines, table.open("w", encoding="utf-8-sig", newline="") as cells:
            writer = csv.writer(cells)
            writer.writerow(field.name for field in fields(Result))
            for result in chain([first] if first else [], found):
                lines.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")
                writer.writerow(_cells(result))
    except OSError as error:
        raise UsageError(f"{error.filename or folder}: {error.strerror or 'cannot be written'}") from None
    return jsonl, table


def _cells(result: Result) -> list[object]:
    """Return the row of a table, the tools by name; a spreadsheet must not take a text for a formula."""
    names = ", ".join(call["name"] for call in result.tool_calls)
    row = {**asdict(result), "tool_calls": names}
    return [f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell for cell in row.values()]


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
