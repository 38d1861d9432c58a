"""The text of a file: plain text, Markdown, CSV, HTML and PDF."""

import logging
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from bs4 import BeautifulSoup
from bs4.element import NavigableString
from pypdf import PdfReader
from pypdf.errors import DependencyError

from tools.text import decode, storable

logging.getLogger("pypdf").setLevel(logging.ERROR)  # its warnings quote the document

_INVISIBLE = ["script", "style", "template", "noscript"]
_LINES = ["br", "caption", "dd", "dt", "li", "tr"]
_BLOCKS = [
    "address", "article", "aside", "blockquote", "div", "dl", "fieldset", "figure", "footer", "form", "h1", "h2", "h3",
    "h4", "h5", "h6", "header", "hr", "main", "nav", "ol", "p", "pre", "section", "table", "title", "ul",
]  # fmt: skip  # one tag a line says nothing more


class Unreadable(Exception):
    """A file has no text to give; the message is the reason."""


def extract_text(path: Path, *, max_bytes: int = 50_000_000) -> str:
    """Return a file's text with `\\n` line ends, chosen by its suffix; Unreadable says why there is none."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = " ".join(sorted(SUFFIXES))
        raise Unreadable(f"files of kind {path.suffix or '(no suffix)'!r} are not supported; supported are {known}")
    text = reader(read_bytes(path, max_bytes=max_bytes)).strip()
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


def _plain(data: bytes) -> str:
    try:
        return decode(data)
    except ValueError as error:
        raise Unreadable(str(error)) from error


def _html(data: bytes) -> str:
    if b"<" not in data:
        return _plain(data)
    soup = BeautifulSoup(data, "html.parser")
    for element in soup.find_all(_INVISIBLE):
        element.decompose()
    for string in soup.find_all(string=True):
        if type(string) is NavigableString and string.find_parent("pre") is None:  # comments are subclasses
            string.replace_with(re.sub(r"\s+", " ", string))
    for element in soup.find_all(_BLOCKS):
        element.insert_before("\n")
    for element in soup.find_all(_BLOCKS + _LINES):
        element.insert_after("\n")
    for element in soup.find_all(["td", "th"]):
        element.append(" ")
    lines = (re.sub(r"[ \t]+", " ", line).strip() for line in soup.get_text().splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def _pdf(data: bytes) -> str:
    try:
        reader = PdfReader(BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("the PDF is protected by a password")
        text = "\n\n".join(page.extract_text() for page in reader.pages)
    except Unreadable:
        raise
    except DependencyError as error:
        raise Unreadable("the PDF is encrypted in a way that cannot be read here") from error
    except Exception as error:  # a damaged file raises anything from KeyError to RecursionError
        raise Unreadable(f"the PDF is damaged ({type(error).__name__})") from error
    if not text.strip():
        raise Unreadable("the PDF holds no text; it may be a scan")
    return text


_READERS: dict[str, Callable[[bytes], str]] = {
    **dict.fromkeys((".txt", ".md", ".markdown", ".csv", ".tsv"), _plain),
    **dict.fromkeys((".html", ".htm"), _html),
    ".pdf": _pdf,
}
SUFFIXES = frozenset(_READERS)
"""The kinds of file that can be read, in lower case."""
