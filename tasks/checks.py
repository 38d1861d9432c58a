"""What can be stored: JSON that both databases take."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from worker.errors import UsageError


def check_json(value: Any, what: str) -> None:
    """Raise UsageError that names `what` unless the value is JSON in UTF-8 without NUL characters."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} must be JSON in UTF-8: {error}") from None
    if any("\x00" in text for text in _texts(value)):
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
