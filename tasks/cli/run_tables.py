"""How runs look."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tasks.cli.output import clean, dollars, number
from tasks.cli.waiting import waits_for
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
