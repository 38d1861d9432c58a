"""Plain text, Markdown and tables as they are."""

from tools.errors import Unreadable
from tools.text import decode


def text(data: bytes) -> str:
    """Return the text in whatever encoding it was written; Unreadable where it is none."""
    try:
        return decode(data)
    except ValueError as error:
        raise Unreadable(str(error)) from error
