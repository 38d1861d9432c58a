"""Loaded into workers as a module of tools: writes what their processes ask of the database.

That is the number of statements and commits, and the microseconds of CPU in which the driver carries statements out.
"""

import json
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

FOLDER = "COUNTS_FOLDER"
_counts: Counter[str] = Counter()
_lock = threading.Lock()
_mine = threading.local()


def total(folder: Path) -> Counter[str]:
    """Return what all processes that write into the folder have sent so far."""
    return sum((Counter(json.loads(file.read_text())) for file in folder.glob("*.json")), Counter())


def environ(folder: Path) -> dict[str, str]:
    """Return what makes a worker count, and write into this folder."""
    folder.mkdir(exist_ok=True)
    return {FOLDER: str(folder), "RUNWRIGHT_TOOL_MODULES": "tests.counting"}


def install(folder: Path) -> None:
    """Count on every engine of this process, and write the counts down with each commit."""
    file = folder / f"{os.getpid()}.json"

    @event.listens_for(Engine, "before_cursor_execute")
    def _statement(*_arguments: Any) -> None:
        _mine.began = time.thread_time()

    @event.listens_for(Engine, "after_cursor_execute")
    def _carried_out(*_arguments: Any) -> None:
        with _lock:
            _counts["statements"] += 1
            _counts["driver_us"] += round((time.thread_time() - _mine.began) * 1e6)

    @event.listens_for(Engine, "commit")
    def _commit(_connection: Connection) -> None:
        with _lock:
            _counts["commits"] += 1
            draft = file.with_suffix(".draft")
            draft.write_text(json.dumps(_counts))
            draft.replace(file)


if FOLDER in os.environ:
    install(Path(os.environ[FOLDER]))
