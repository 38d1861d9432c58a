"""Looking up rows of a CSV table."""

import csv
from difflib import get_close_matches
from io import StringIO
from typing import Annotated

from tools.context import ToolContext
from tools.errors import Unreadable
from tools.extract import read_bytes
from tools.folder import find_file
from tools.registry import tool
from tools.text import decode

_ROWS = 20
_SUFFIXES = (".csv", ".tsv")


@tool(effect="read")
def lookup_table(
    table: Annotated[str, "The table's file name, such as suppliers.csv"],
    column: Annotated[str, "The column to look in"],
    value: Annotated[str, "The value that the column must have"],
    context: ToolContext,
) -> dict[str, object]:
    """Look up the rows of a CSV table whose column has a value; upper and lower case do not matter."""
    header, *rows = _read(context, table)
    names = [_plain(name) for name in header]
    if _plain(column) not in names:
        raise ValueError(f"There is no column {column!r} in {table}. Its columns are: {', '.join(header)}.")
    at = names.index(_plain(column))
    matches = [row for row in rows if len(row) > at and _plain(row[at]) == _plain(value)]
    found: dict[str, object] = {
        "matches": len(matches),
        "rows": [dict(zip(header, row, strict=False)) for row in matches[:_ROWS]],
    }
    if not matches:
        values = {row[at].strip() for row in rows if len(row) > at}
        found["similar_values"] = get_close_matches(value, sorted(values)[:5_000], cutoff=0.5)
    return found


def _read(context: ToolContext, table: str) -> list[list[str]]:
    path = find_file(context.data, table, _SUFFIXES)
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{table!r} is not a table; tables end in {' or '.join(_SUFFIXES)}")
    try:
        text = decode(read_bytes(path))
        rows = [row for row in csv.reader(StringIO(text, newline=""), delimiter=_delimiter(text)) if row]
    except (Unreadable, ValueError, csv.Error) as error:
        raise ValueError(f"{table!r} cannot be read: {error}") from error
    if not rows:
        raise ValueError(f"{table!r} has no rows")
    return [[cell.strip() for cell in rows[0]], *rows[1:]]


def _delimiter(text: str) -> str:
    """Return what parts the cells of the header; csv.Sniffer errs on short tables."""
    header = text.lstrip().partition("\n")[0]
    return max(",;\t|", key=header.count)


def _plain(value: str) -> str:
    return " ".join(value.split()).casefold()
