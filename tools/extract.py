"""The text of a file: plain text, Markdown, CSV, HTML and PDF."""

import importlib
from pathlib import Path

from tools.errors import Unreadable
from tools.text import storable


def extract_text(path: Path, *, max_bytes: int = 50_000_000) -> str:
    """Return a file's text with `\\n` line ends, chosen by its suffix; Unreadable says why there is none."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = " ".join(sorted(SUFFIXES))
        raise Unreadable(f"files of kind {path.suffix or '(no suffix)'!r} are not supported; supported are {known}")
    data = read_bytes(path, max_bytes=max_bytes)
    text = str(importlib.import_module(f"tools.readers.{reader}").text(data)).strip()
    if not text:
        raise Unreadable("it holds no text")
    return storable(text)


def read_bytes(path: Path, *, max_bytes: int = 50_000_000) -> bytes:
    """Return a file's bytes, never more than `max_bytes`; Unreadable says why not."""
    try:
        if not path.is_file():
            raise Unreadable("it is not a file" if path.exists() else "there is no such file")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise Unreadable(error.strerror or type(error).__name__) from error
    if len(data) > max_bytes:
        raise Unreadable(f"it is larger than {max_bytes:,} bytes")
    if not data:
        raise Unreadable("it is empty")
    return data


# By suffix the module of tools/readers that is imported with the first file of its kind.
_READERS = {
    **dict.fromkeys((".txt", ".md", ".markdown", ".csv", ".tsv"), "plain"),
    **dict.fromkeys((".html", ".htm"), "markup"),
    ".pdf": "pdf",
}
SUFFIXES = frozenset(_READERS)
"""The kinds of file that can be read, in lower case."""
