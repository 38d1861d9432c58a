"""Loaded into workers as a module of tools: writes how many statements and commits their processes have sent."""

import json
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

FOLDER = "COUNTS_FOLDER"
_counts: Counter[str] = Counter()
_lock = threading.Lock()


def total(folder: Path) -> Counter[str]:
    """Return what all processes that write into the folder have sent so far."""
    return sum((Counter(json.loads(file.read_text())) for file in folder.glob("*.json")), Counter())


def install(folder: Path) -> None:
    """Count on every engine of this process, and write the counts down with each commit."""
    file = folder / f"{os.getpid()}.json"

    @event.listens_for(Engine, "before_cursor_execute")
    def _statement(*_arguments: Any) -> None:
        with _lock:
            _counts["statements"] += 1

    @event.listens_for(Engine, "commit")
    def _commit(_connection: Connection) -> None:
        with _lock:
            _counts["commits"] += 1
            draft = file.with_suffix(".draft")
            draft.write_text(json.dumps(_counts))
            draft.replace(file)


if FOLDER in os.environ:
    install(Path(os.environ[FOLDER]))
