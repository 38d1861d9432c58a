"""Watching a batch: a live bar in a terminal, a line now and then anywhere else."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from tasks.cli.output import clean, number, pairs
from tasks.cli.tables import counts
from tasks.cli.waiting import hint
from worker.lifecycle import ACTIVE
from worker.store import batches
from worker.store.batches import Progress
from worker.store.database import Database

_LOOK = 0.5
_LINE = 5.0


def watch(database: Database, batch_id: str, console: Console, check: Callable[[], None] = lambda: None) -> Progress:
    """Show a batch until all of it has ended and return where it stands then; UsageError for an unknown one.

    `check` is called at each look and may raise: nobody should watch for what will never come.
    """
    progress = _look(database, batch_id)
    pace = _Pace(time.monotonic(), progress.ended)
    if progress.ended < progress.documents:
        hint(database, console)
    live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
    draw = partial(_draw, live) if live else _Lines(console).draw
    with live or nullcontext():
        while progress.ended < progress.documents:
            draw(progress, pace)
            check()
            time.sleep(_LOOK)
            progress = _look(database, batch_id)
    console.print(clean(_line(progress)), soft_wrap=True)
    return progress


def _look(database: Database, batch_id: str) -> Progress:
    with database.read() as connection:
        return batches.progress(connection, batch_id)


@dataclass(frozen=True, slots=True)
class _Pace:
    """When the watching began, and what had ended by then."""

    at: float
    ended: int

    def rate(self, progress: Progress) -> float:
        """Return the documents that end in a second."""
        return (progress.ended - self.ended) / max(time.monotonic() - self.at, _LOOK)

    def told(self, progress: Progress) -> str:
        """Write the rate and the time left at that rate."""
        rate = self.rate(progress)
        if not rate:
            return "–/s"
        left = round((progress.documents - progress.ended) / rate)
        return f"{number(rate, 1)}/s, about {left // 60}:{left % 60:02d} left"


def _draw(live: Live, progress: Progress, pace: _Pace) -> None:
    line = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=progress.documents, completed=progress.ended, width=30)
    line.add_row(bar, clean(_line(progress)), clean(pace.told(progress)))
    live.update(line, refresh=True)


class _Lines:
    """A line when something has changed, at most every some seconds: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._line = ""
        self._next = 0.0

    def draw(self, progress: Progress, pace: _Pace) -> None:
        """Print where the batch stands, if it is time and news."""
        line = _line(progress)
        if line != self._line and time.monotonic() >= self._next:
            self._line, self._next = line, time.monotonic() + _LINE
            self._console.print(clean(f"{line}; {pace.told(progress)}"), soft_wrap=True)


def _line(progress: Progress) -> str:
    told = counts(progress)
    going = {name: count for name, count in told.items() if name in ACTIVE}
    ends = {name: count for name, count in told.items() if name not in ACTIVE}
    line = f"{progress.ended} of {progress.documents} documents ended"
    line += f": {pairs(ends)}" if ends else ""
    return f"{line}; {pairs(going)}" if going else line
