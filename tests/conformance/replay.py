"""Replays the journal: tells from the events alone who had each thread's turn, and what went against it.

The rule: the turn is free when no run of the thread is active; it is given to the first that comes, and kept until its
run has ended; then it goes to the lowest place among the active ones. So a reopened run comes before the runs behind
its place, but never interrupts the one that has the turn.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from worker.lifecycle import TERMINAL
from worker.models import EventRow, Run

ENDED = {status.value for status in TERMINAL}


@dataclass
class Line:
    """One thread as the journal tells it: the active places, the turn, and the place that is being carried out."""

    active: set[int] = field(default_factory=set)
    turn: int | None = None
    fences: dict[int, int] = field(default_factory=dict)

    def enter(self, place: int) -> None:
        self.active.add(place)
        if self.turn is None:
            self.turn = place

    def leave(self, place: int) -> None:
        self.active.discard(place)
        if self.turn == place:
            self.turn = min(self.active, default=None)


@dataclass
class Replay:
    """What the whole journal tells: the line of each thread, and each event that the rule forbids."""

    lines: dict[str, Line] = field(default_factory=dict)
    overlaps: list[str] = field(default_factory=list)
    order_faults: list[str] = field(default_factory=list)
    claims: int = 0

    def turns(self) -> dict[str, int]:
        """Return the place that has the turn, of each thread with an active run."""
        return {thread: line.turn for thread, line in self.lines.items() if line.turn is not None}

    def take(self, thread: str, place: int, name: str, fence: int) -> None:
        """Follow one event."""
        line = self.lines.setdefault(thread, Line())
        told = f"{name} of {thread}/{place} while {line.turn} has the turn of {sorted(line.active)}"
        if name in {"submitted", "reopened"}:
            line.enter(place)
        elif name == "cancelled":
            line.leave(place)  # the one end that a run may come to without its turn
        elif place != line.turn:
            (self.order_faults if place in line.active else self.overlaps).append(told)
        elif name in ENDED:
            line.leave(place)
        elif name == "claimed":
            self.claims += 1
            if fence <= line.fences.get(place, 0):
                self.overlaps.append(f"{told}: fence {fence} after {line.fences[place]}")
            line.fences[place] = fence


def replay(events: Iterable[tuple[str, int, str, int]]) -> Replay:
    """Follow events (thread, place, name, fence) from the first to the last."""
    told = Replay()
    for event in events:
        told.take(*event)
    return told


def journal(connection: Connection) -> list[tuple[str, int, str, int]]:
    """Return the events of every run in the order in which they were written."""
    columns = (Run.thread_id, Run.seq, EventRow.name, EventRow.data)
    rows = connection.execute(select(*columns).join(Run, Run.id == EventRow.run_id).order_by(EventRow.id))
    asked = (row for row in rows if row.name != "cancel_requested")  # anybody may ask, at any time
    return [(row.thread_id, row.seq, row.name, row.data.get("fence", 0)) for row in asked]
