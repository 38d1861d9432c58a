"""Results on stdout, notes on stderr; a text of a model or a document can neither break nor style a terminal."""

import json
import sys
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]

_WIDE = 160
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _width() -> int | None:
    """Give tables room where no terminal limits them; None lets rich measure the terminal."""
    return None if sys.stdout.isatty() else _WIDE


OUT = Console(highlight=False, markup=False, emoji=False, width=_width())
ERR = Console(highlight=False, markup=False, emoji=False, stderr=True)


def emit(document: Any) -> None:
    """Print one JSON document; ASCII only, so that no terminal setting can spoil it."""
    typer.echo(json.dumps(document, indent=2, default=_plain))


def emit_line(document: Any) -> None:
    """Print one JSON document on a line of its own, of the many that a command gives."""
    typer.echo(json.dumps(document, default=_plain))


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")


def note(text: str) -> None:
    """Tell a person something that is not the result."""
    ERR.print(clean(text), soft_wrap=True)


def say(text: str) -> None:
    """Print one line of the result."""
    OUT.print(clean(text), soft_wrap=True)


def clean(text: object, style: str = "") -> Text:
    """Return text as it may be shown: no control characters but line ends and tabs, nothing that turns direction."""
    return Text("".join(c for c in str(text) if c in "\n\t" or not _is_control(c)), style=style)


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cs"} or character in _TURNING


def dollars(cost: float | None) -> str:
    """Write a cost; a dash where it is not known."""
    return "–" if cost is None else f"${cost:.4f}" if cost >= 0.01 else f"${cost:.6f}"


def number(value: float | None, digits: int = 0) -> str:
    """Write a number with separators; a dash where it is not known."""
    return "–" if value is None else f"{value:,.{digits}f}"


def pairs(mapping: Mapping[str, Any]) -> str:
    """Write `name value` pairs on one line."""
    return ", ".join(f"{value} {name}" for name, value in mapping.items())
