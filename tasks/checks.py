"""What can be stored: JSON that both databases take."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from worker.errors import UsageError


def check_json(value: Any, what: str) -> None:
    """Raise UsageError that names `what` unless the value is JSON in UTF-8 without NUL characters."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} must be JSON in UTF-8: {error}") from None
    # Only a text that looks so when it is encoded is taken apart: a submit in bulk passes here once a run.
    if "\\u0000" in text and any("\x00" in one for one in _texts(value)):
        raise UsageError(f"{what} holds a NUL character, which PostgreSQL cannot store")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from _texts(pair)
    elif isinstance(value, Sequence):
        for one in value:
            yield from _texts(one)
