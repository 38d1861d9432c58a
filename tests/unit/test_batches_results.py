"""A batch in the database: submitted, estimated, its results shown and exported."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tasks import batches, bulk
from tasks.batches import Document, Result
from tasks.bulk import Change
from tasks.cli.progress import watch
from tasks.cli.tables import results_table
from worker import tokens
from worker.errors import UsageError
from worker.lifecycle import Event, Status
from worker.producer import Producer, producer
from worker.response import Usage
from worker.store import assistants, claiming, held, leases, reading, settling
from worker.store import batches as store
from worker.store.choosing import Chosen

DOCUMENTS = [
    Document("=cmd.txt", "one"),
    Document("b.pdf", None, "the PDF is damaged"),
    Document("[red]c.txt", "threé"),
]
ANSWER = "=1+1 \x1b[31m[red]not red[/red]"


@pytest.fixture
def door(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Producer]:
    """Return a producer with one assistant; its doorbell rings where nobody listens."""
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    producer.cache_clear()
    with producer().database.write() as connection:
        assistants.apply(connection, "clerk", {"model": "gpt-6-luna", "tools": ["calculate"], "instructions": "x" * 40})
        assistants.apply(connection, "unpriced", {"model": "house-model"})
    yield producer()
    producer().database.close()
    producer.cache_clear()


def end(door: Producer, event: Event, answer: str | None = None, code: str | None = None) -> None:
    """Carry the next due run to this end."""
    with door.database.write() as connection:
        name = f"worker-{event}"
        leases.register(connection, name, node="n", pid=1, queues=["default"], room=1, lease=60)
        (claim,) = claiming.claim(connection, name, ["default"], 1)
        usage = Usage(1000, 200, 0.0002)
        told = settling.End(event, answer, code, f"{code} happened" if code else None, usage=usage)
        held.commit(connection, claim, settling.settle, told)
        leases.leave(connection, name)


def test_every_document_has_a_row_and_the_readable_ones_a_run(door: Producer) -> None:
    """The unreadable one fails alone, with its reason."""
    batch_id = batches.submit(door, "clerk", "Sum up.", DOCUMENTS)
    with door.database.read() as connection:
        progress, rows = store.progress(connection, batch_id), store.documents(connection, batch_id)
    assert (progress.documents, progress.unreadable, dict(progress.statuses)) == (3, 1, {"queued": 2})
    assert [(row.name, row.characters, row.error) for row in rows] == [
        ("=cmd.txt", 3, None),
        ("b.pdf", None, "the PDF is damaged"),
        ("[red]c.txt", 5, None),
    ]
    results = list(batches.results(door.database, batch_id))
    assert [result.status for result in results] == ["queued", "unreadable", "queued"]


def test_many_documents_take_several_transactions(door: Producer) -> None:
    """Positions go on over the chunks, and results come in the order of the documents."""
    documents = [Document(f"{number}.txt", "x") for number in range(250)]
    batch_id = batches.submit(door, "clerk", "P", documents)
    assert [one.document for one in batches.results(door.database, batch_id)] == [one.name for one in documents]


def test_a_batch_of_nothing_is_refused(door: Producer) -> None:
    """Expected: an error in words, where documents are made one by one too, and no batch."""
    with pytest.raises(UsageError, match="no documents"):
        batches.submit(door, "clerk", "P", iter(()))
    with door.database.read() as connection:
        assert store.newest(connection, 10) == []


def test_all_runs_of_a_batch_have_one_version(door: Producer) -> None:
    """Expected: what is applied while a long submit goes on is for what comes behind it."""

    def documents() -> Iterator[Document]:
        for number in range(150):
            if number == 120:
                with door.database.write() as connection:
                    assistants.apply(connection, "clerk", {"model": "gpt-6-sol"})
            yield Document(f"{number}.txt", "x")

    batch_id = batches.submit(door, "clerk", "P", documents())
    with door.database.read() as connection:
        views = reading.runs(connection, batch_id=batch_id, limit=1000)
    assert {view.assistant_version for view in views} == {1}


def test_a_wrong_submit_writes_nothing(door: Producer) -> None:
    """An unknown assistant names the known ones; a prompt must say something."""
    with pytest.raises(UsageError, match=r"no assistant 'nope' \(there is: clerk, unpriced\)"):
        batches.submit(door, "nope", "P", DOCUMENTS)
    with pytest.raises(UsageError, match="the prompt is empty"):
        batches.submit(door, "clerk", " ", DOCUMENTS)
    with pytest.raises(UsageError, match="priority 11"):
        batches.submit(door, "clerk", "P", DOCUMENTS, priority=11)
    with door.database.read() as connection:
        assert store.newest(connection) == []


def test_an_estimate_counts_bytes_and_knows_prices(door: Producer) -> None:
    """Four bytes of UTF-8 a token, two steps with tools; a model without a price costs null, not 0."""
    found = batches.estimate(door, "clerk", "P", DOCUMENTS)
    one, three = (len(batches.message("P", DOCUMENTS[at]).encode()) + 40 for at in (0, 2))
    assert found.input_tokens == 2 * (-(-one // 4) + -(-three // 4))
    assert found.output_tokens == 2 * 2 * tokens.ANSWER
    assert found.cost_usd == pytest.approx((found.input_tokens * 0.10 + found.output_tokens * 0.50) / 1e6)
    assert (found.documents, found.unreadable) == (2, [{"document": "b.pdf", "error": "the PDF is damaged"}])
    assert batches.estimate(door, "unpriced", "P", DOCUMENTS).cost_usd is None


def test_an_estimate_has_the_discount_of_a_window(door: Producer) -> None:
    """Expected: 40 per cent below the same batch without one, and it says so; tokens are the same."""
    config = {"model": "gpt-6-luna", "tools": ["calculate"], "instructions": "x" * 40}
    with door.database.write() as connection:
        assistants.apply(connection, "night", {**config, "completion_window": "8h"})
    full, less = (batches.estimate(door, name, "P", DOCUMENTS) for name in ("clerk", "night"))
    assert full.cost_usd
    assert less.cost_usd == pytest.approx(full.cost_usd * 0.6)
    assert (less.input_tokens, less.output_tokens) == (full.input_tokens, full.output_tokens)
    assert less.assumption == f"{full.assumption}, 40% off for completion_window"


def test_export_writes_what_came_out(door: Producer, tmp_path: Path) -> None:
    """JSONL has the texts as they are; in CSV no cell begins a formula."""
    batch_id = batches.submit(door, "clerk", "P", DOCUMENTS)
    end(door, Event.COMPLETE, ANSWER)
    end(door, Event.FAIL, None, "server_error")
    jsonl, table = batches.export(door.database, batch_id, tmp_path / "out" / "deep")
    first, second, third = (json.loads(line) for line in jsonl.read_text(encoding="utf-8").splitlines())
    assert (first["document"], first["answer"], first["cost_usd"]) == ("=cmd.txt", ANSWER, 0.0002)
    assert (second["status"], second["error"], second["run_id"]) == ("unreadable", "the PDF is damaged", None)
    assert (third["status"], third["error"]) == ("failed", "server_error: server_error happened")
    rows = list(csv.DictReader(table.read_text(encoding="utf-8-sig").splitlines()))
    assert (rows[0]["document"], rows[0]["answer"][:6]) == ("'=cmd.txt", "'=1+1 ")
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@"))]


def test_export_of_an_unknown_batch_touches_no_file(door: Producer, tmp_path: Path) -> None:
    """The batch is looked up before the folder is made; a folder that is a file is told in one line."""
    with pytest.raises(UsageError, match="no batch 'nope'"):
        batches.export(door.database, "nope", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    batch_id = batches.submit(door, "clerk", "P", DOCUMENTS)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file: File exists"):
        batches.export(door.database, batch_id, tmp_path / "file")


def change(door: Producer, what: Change, batch_id: str, *statuses: Status) -> int:
    """Cancel or retry what a choice of the batch holds; returns how many those were."""
    return bulk.apply(door, what, bulk.choice(what, Chosen(batch_id=batch_id, statuses=statuses))).count


def test_cancel_and_retry_of_a_whole_batch(door: Producer) -> None:
    """Cancelled runs are not failed ones; where nothing is chosen they come back too, completed ones never."""
    batch_id = batches.submit(door, "clerk", "P", [*DOCUMENTS, Document("d.txt", "four")])
    end(door, Event.COMPLETE, "done")
    end(door, Event.FAIL, None, "server_error")
    assert change(door, Change.CANCEL, batch_id) == 1
    assert change(door, Change.RETRY, batch_id, *bulk.FAILED) == 1
    assert change(door, Change.RETRY, batch_id) == 1
    statuses = [one.status for one in batches.results(door.database, batch_id)]
    assert statuses == ["completed", "unreadable", "queued", "queued"]


def test_watching_without_a_terminal_ends_with_the_batch(door: Producer) -> None:
    """One line with the counts, no escape sequence."""
    batch_id = batches.submit(door, "clerk", "P", DOCUMENTS)
    end(door, Event.COMPLETE, ANSWER)
    change(door, Change.CANCEL, batch_id)
    written = io.StringIO()
    progress = watch(door.database, batch_id, Console(file=written))
    assert (progress.ended, progress.completed) == (3, 1)
    assert written.getvalue() == "3 of 3 documents ended: 1 cancelled, 1 completed, 1 unreadable\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_watching_shows_where_the_batch_stands(door: Producer, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """A bar in a terminal, a line elsewhere; both say at first that no worker is running."""
    batch_id = batches.submit(door, "clerk", "P", DOCUMENTS)
    monkeypatch.setattr("tasks.cli.progress.time.sleep", lambda _: change(door, Change.CANCEL, batch_id))
    written = io.StringIO()
    progress = watch(door.database, batch_id, Console(file=written, width=120, force_terminal=terminal))
    assert progress.ended == 3
    assert written.getvalue().startswith("no worker is running")
    assert "1 of 3 documents ended: 1 unreadable; 2 queued" in written.getvalue()
    assert ("━" in written.getvalue()) is terminal


def test_a_table_cannot_be_styled_by_what_it_shows() -> None:
    """Markup in names and answers is text; control characters are gone."""
    result = Result("[red]c.txt", "completed", ANSWER, None, [{"name": "a"}, {"name": "a"}], 1, 2, None, 1.0, "r")
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="truecolor")
    with console.capture() as captured:
        console.print(results_table([result], 200))
    shown = captured.get()
    assert "[red]c.txt" in shown
    assert "=1+1 [31m[red]not red[/red]" in shown
    assert "\x1b[31m" not in shown
    assert "a ×2" in shown
