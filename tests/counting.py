"""Loaded into a worker as a module of tools: writes how many statements and commits its process has sent."""

import json
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

FILE = "COUNTS_FILE"
_counts: Counter[str] = Counter()
_lock = threading.Lock()


def install(file: Path) -> None:
    """Count on every engine of this process, and write the counts down with each commit."""

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


if FILE in os.environ:
    install(Path(os.environ[FILE]))
