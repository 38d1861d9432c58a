"""Reading a document by its name."""

from typing import Annotated

from pydantic import Field

from tools.context import ToolContext
from tools.errors import Unreadable
from tools.extract import SUFFIXES, extract_text
from tools.folder import find_file
from tools.registry import tool

PART = 20_000
"""Characters that one call returns at most."""


@tool(effect="read")
def read_document(
    name: Annotated[str, "The document's file name, such as notes.md"],
    context: ToolContext,
    start: Annotated[int, Field(ge=0, description="The character to begin at; 0 is the beginning")] = 0,
) -> str:
    """Read the text of a document by its name: plain text, Markdown, CSV, HTML or PDF."""
    path = find_file(context.data, name, SUFFIXES)
    try:
        text = extract_text(path)
    except Unreadable as error:
        raise ValueError(f"{name!r} cannot be read: {error}") from error
    if start >= len(text):
        raise ValueError(f"{name!r} has only {len(text)} characters; start must be less")
    end = start + PART
    if end >= len(text):
        return text[start:]
    return f"{text[start:end]}\n[{len(text) - end} characters more: read on with start={end}]"
