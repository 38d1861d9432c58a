"""Tables for people."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tasks.batches import Result
from tasks.cli.output import clean, dollars, number, pairs
from tasks.cli.questions import waits_for
from worker.store.batches import Progress
from worker.store.overview import ErrorView, QueueView, WorkerView
from worker.store.reading import RunView

STYLES = {
    "completed": "green",
    "failed": "red",
    "expired": "red",
    "unreadable": "red",
    "incomplete": "yellow",
    "cancelled": "yellow",
    "cancelling": "yellow",
}
_ANSWER = 150
_RUN_COLUMNS = ("run", "status", "assistant", "thread", "created", "attempts", "cost", "seconds")
_ROOM = {"attempts": 120, "cost": 120, "thread": 100, "seconds": 100}  # the terminal's width from which each is shown
_WHOLE = {"run", "created", "status"}  # an id or a time in pieces cannot be copied or read


def table_of(*columns: str, right: Sequence[str] = ()) -> Table:
    """Return an empty table with these columns; those that are `right` hold numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        narrow = column in right or column in _WHOLE
        side: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=side, overflow="fold", no_wrap=narrow)
    return table


def results_table(results: Iterable[Result]) -> Table:
    """Show what came of each document of a batch."""
    numbers = ("tokens", "cost", "seconds")
    table = table_of("document", "status", "answer", "tool calls", *numbers, right=numbers)
    for one in results:
        tokens = None if one.input_tokens is None else one.input_tokens + (one.output_tokens or 0)
        told = _short(one.answer or one.error or "")
        table.add_row(
            clean(one.document),
            clean(one.status, STYLES.get(one.status, "")),
            clean(told, "" if one.answer else "dim"),
            clean("\n".join(_counted([call["name"] for call in one.tool_calls]))),
            number(tokens),
            dollars(one.cost_usd),
            number(one.seconds, 1),
        )
    return table


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _ANSWER else f"{line[: _ANSWER - 1]}…"


def _counted(names: Sequence[str]) -> list[str]:
    counts = {name: names.count(name) for name in names}
    return [name if count == 1 else f"{name} ×{count}" for name, count in counts.items()]


def runs_table(views: Iterable[RunView], width: int) -> Table:
    """Show many runs, one a line; a narrow terminal gets fewer columns, so that the runs' ids stay whole."""
    left_out = {name for name, needed in _ROOM.items() if width < needed}
    names = [name for name in _RUN_COLUMNS if name not in left_out]
    table = table_of(*names, right=("attempts", "cost", "seconds"))
    for column in table.columns:
        column.overflow = "ellipsis"  # a thread's id over six lines hides the rest; `show` has it whole
    for view in views:
        told: dict[str, str | Text] = {
            "run": view.id,
            "status": clean(view.status.value, STYLES.get(view.status.value, "")),
            "assistant": clean(view.assistant),
            "thread": clean(view.thread_id),
            "created": f"{view.created_at:{'%m-%d %H:%M:%S' if 'seconds' in left_out else '%Y-%m-%d %H:%M:%S'}}",
            "attempts": number(view.attempts),
            "cost": dollars(view.cost_usd),
            "seconds": number(view.seconds, 1),
        }
        table.add_row(*(told[name] for name in names))
    return table


def run_details(view: RunView) -> RenderableType:
    """Show one run whole: what it is, its tool calls, its end."""
    facts = Table.grid(padding=(0, 2))
    tokens = f"{number(view.usage['input_tokens'])} in, {number(view.usage['output_tokens'])} out"
    for name, value in (
        ("run", view.id),
        ("status", view.status.value),
        ("assistant", f"{view.assistant}, version {view.assistant_version}"),
        ("thread", view.thread_id),
        ("attempts", f"{view.attempts} of {view.max_attempts}"),
        ("created", f"{view.created_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("seconds", number(view.seconds, 1)),
        ("tokens", tokens),
        ("cost", dollars(view.cost_usd)),
        ("metadata", ", ".join(f"{name}={value}" for name, value in view.metadata.items()) or "–"),
    ):
        facts.add_row(name, clean(value, STYLES.get(view.status.value, "") if name == "status" else ""))
    parts: list[RenderableType] = [facts]
    if view.tool_calls:
        calls = table_of("tool call", "arguments", "output", "status")
        for call in view.tool_calls:
            calls.add_row(*(clean(_short(str(call[key] or ""))) for key in ("name", "arguments", "output", "status")))
        parts.append(calls)
    if waiting := waits_for(view):
        parts.append(clean(f"\n{waiting}", "yellow"))
    if view.error:
        parts.append(clean(f"\n{view.error['code']}: {view.error['message']}", "red"))
    if view.output_text:
        parts.append(clean(f"\n{view.output_text}"))
    return Group(*parts)


def batches_table(batches: Iterable[Progress]) -> Table:
    """Show many batches, one a line."""
    numbers = ("documents", "ended", "cost")
    table = table_of("batch", "assistant", "created", *numbers, "statuses", right=numbers)
    for one in batches:
        table.add_row(
            one.id,
            clean(one.assistant),
            f"{one.created_at:%Y-%m-%d %H:%M:%S}",
            number(one.documents),
            number(one.ended),
            dollars(one.cost_usd),
            pairs(counts(one)),
        )
    return table


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
    """Show how often each error ended a run, and how often another attempt follows it."""
    numbers = ("ended", "retried")
    table = table_of("error in the last hour", *numbers, right=numbers)
    for one in errors:
        table.add_row(clean(one.code, "red" if one.ended else ""), number(one.ended), number(one.retried))
    return table
