"""How runs look."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tasks.cli.output import clean, dollars, number
from tasks.cli.waiting import waits_for
from worker.store.reading import RunView

Cells = Mapping[str, str | Text]
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
_WHOLE = {"run", "batch", "created", "status", "answers at", "time (UTC)"}  # in pieces nobody can copy or read them
_NARROW = 100  # a terminal of less has no room for a created time with its year


def table_of(*columns: str, right: Sequence[str] = ()) -> Table:
    """Return an empty table with these columns; those that are `right` hold numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        narrow = column in right or column in _WHOLE
        side: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=side, overflow="fold", no_wrap=narrow)
    return table


def fitting(found: Iterable[Cells], width: int, needs: Mapping[str, int], right: Sequence[str]) -> Table:
    """Show rows of named cells; a column that `needs` a wider terminal is left out, so that the others stay whole."""
    rows = list(found)
    names = [name for name in rows[0] if width >= needs.get(name, 0)] if rows else []
    table = table_of(*names, right=right)
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table


def day_time(at: datetime, width: int) -> str:
    """Write when something was created; in a narrow terminal without the year."""
    return f"{at:{'%m-%d %H:%M:%S' if width < _NARROW else '%Y-%m-%d %H:%M:%S'}}"


def runs_table(views: Iterable[RunView], width: int) -> Table:
    """Show many runs, one a line."""
    rows: Iterable[Cells] = (
        {
            "run": view.id,
            "status": clean(view.status.value, STYLES.get(view.status.value, "")),
            "assistant": clean(view.assistant),
            "thread": clean(view.thread_id),
            "created": day_time(view.created_at, width),
            "attempts": number(view.attempts),
            "cost": dollars(view.cost_usd),
            "seconds": number(view.seconds, 1),
        }
        for view in views
    )
    needs = {"attempts": 120, "cost": 120, "thread": 100, "seconds": 100}
    table = fitting(rows, width, needs, right=("attempts", "cost", "seconds"))
    for column in table.columns:
        column.overflow = "ellipsis"  # a thread's id over six lines hides the rest; `show` has it whole
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
            told = (short(str(call[key] or "")) for key in ("arguments", "output", "status"))
            calls.add_row(*map(clean, (called(call), *told)))
        parts.append(calls)
    if waiting := waits_for(view):
        parts.append(clean(f"\n{waiting}", "yellow"))
    if view.error:
        parts.append(clean(f"\n{view.error['code']}: {view.error['message']}", "red"))
    if view.output_text:
        parts.append(clean(f"\n{view.output_text}"))
    return Group(*parts)


def called(call: Mapping[str, Any]) -> str:
    """Return a call's name, marked where the provider has made it with a tool of its own."""
    return f"{call['name']} (the provider's)" if call["hosted"] else str(call["name"])


def short(text: str) -> str:
    """Return the text on one line, the beginning of a long one."""
    line = " ".join(text.split())
    return line if len(line) <= _ANSWER else f"{line[: _ANSWER - 1]}…"
