"""How batches and the whole look."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from tasks.batches import Result
from tasks.cli.output import clean, dollars, number, pairs
from tasks.cli.run_tables import STYLES, Cells, day_time, fitting, short, table_of
from worker.store.batches import Progress
from worker.store.overview import ErrorView, QueueView, WorkerView


def results_table(results: Iterable[Result], width: int) -> Table:
    """Show what came of each document of a batch."""
    numbers = ("tokens", "cost", "seconds")
    needs = {"tool calls": 120, "tokens": 120, "seconds": 100}
    return fitting(map(_result_cells, results), width, needs, right=numbers)


def _result_cells(one: Result) -> Cells:
    tokens = None if one.input_tokens is None else one.input_tokens + (one.output_tokens or 0)
    return {
        "document": clean(one.document),
        "status": clean(one.status, STYLES.get(one.status, "")),
        "answer": clean(short(one.answer or one.error or ""), "" if one.answer else "dim"),
        "tool calls": clean("\n".join(_counted([call["name"] for call in one.tool_calls]))),
        "tokens": number(tokens),
        "cost": dollars(one.cost_usd),
        "seconds": number(one.seconds, 1),
    }


def _counted(names: Sequence[str]) -> list[str]:
    counts = {name: names.count(name) for name in names}
    return [name if count == 1 else f"{name} ×{count}" for name, count in counts.items()]


def batches_table(batches: Iterable[Progress], width: int) -> Table:
    """Show many batches, one a line."""
    rows: Iterable[Cells] = (
        {
            "batch": one.id,
            "assistant": clean(one.assistant),
            "created": day_time(one.created_at, width),
            "documents": number(one.documents),
            "ended": number(one.ended),
            "cost": dollars(one.cost_usd),
            "statuses": pairs(counts(one)),
        }
        for one in batches
    )
    needs = {"assistant": 100, "documents": 120, "ended": 120, "cost": 120}
    return fitting(rows, width, needs, right=("documents", "ended", "cost"))


def counts(progress: Progress) -> dict[str, int]:
    """Return how many documents stand where, unreadable ones among them."""
    unreadable = {"unreadable": progress.unreadable} if progress.unreadable else {}
    return {**dict(sorted(progress.statuses.items())), **unreadable}


def progress_json(progress: Progress) -> dict[str, Any]:
    """Return where a batch stands, for --json."""
    return {
        "id": progress.id,
        "assistant": progress.assistant,
        "created_at": progress.created_at,
        "documents": progress.documents,
        "unreadable": progress.unreadable,
        "ended": progress.ended,
        "completed": progress.completed,
        "statuses": dict(progress.statuses),
        "usage": {"input_tokens": progress.input_tokens, "output_tokens": progress.output_tokens},
        "cost_usd": progress.cost_usd,
        "budget_usd": progress.budget_usd,
        "held_back": progress.held_back,
    }


def queues_table(queues: Iterable[QueueView]) -> Table:
    """Show the backlog of each queue."""
    numbers = ("due", "oldest due", "paused", "later", "parked", "waiting", "in flight", "workers")
    table = table_of("queue", *numbers, right=numbers)
    for one in queues:
        oldest = "–" if one.oldest_due_seconds is None else f"{number(one.oldest_due_seconds, 1)} s"
        counted = (one.paused, one.later, one.parked, one.waiting, one.in_flight, one.workers)
        table.add_row(clean(one.queue), number(one.due), oldest, *map(number, counted))
    return table


def workers_table(workers: Iterable[WorkerView]) -> Table:
    """Show each worker, what it holds, and for how long its lease goes on."""
    numbers = ("held", "lease")
    table = table_of("worker", "node", "queues", *numbers, "answers at", right=numbers)
    for one in workers:
        table.add_row(
            clean(one.id[:8]),
            clean(one.node),
            clean(", ".join(one.queues)),
            f"{number(one.held)} / {number(one.max_in_flight)}",
            f"{number(one.lease_seconds, 1)} s",
            clean(one.http or "–"),
        )
    return table


def errors_table(errors: Iterable[ErrorView]) -> Table:
    """Show how often each error ended a run, only an attempt at one, or refused a request that is asked again."""
    numbers = ("ended", "retried", "refused")
    table = table_of("error in the last hour", *numbers, right=numbers)
    for one in errors:
        table.add_row(clean(one.code, "red" if one.ended else ""), *map(number, (one.ended, one.retried, one.refused)))
    return table
