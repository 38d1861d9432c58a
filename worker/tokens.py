"""How many tokens something takes, where nobody has counted them: a guess by its length, and no more than that."""

import json
from math import ceil
from typing import Any

_BYTES = 4  # of UTF-8 for one token: English prose; code, tables and many other languages take more tokens
ANSWER = 500
"""Tokens of one answer, where nothing says how long it may be."""


def guessed(size: int) -> int:
    """Return the tokens of a text of so many bytes."""
    return ceil(size / _BYTES)


def of(value: Any) -> int:
    """Return the tokens of a value as it is sent, as JSON."""
    return guessed(len(json.dumps(value, ensure_ascii=False).encode(errors="replace")))
