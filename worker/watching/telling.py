"""What a watcher of a run is told, and the position behind each event, from which a watcher can go on."""

import re
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal, NamedTuple, Self

from worker.errors import UsageError
from worker.lifecycle import Status
from worker.watching.live import Mark

Kind = Literal["status", "calls", "output", "question", "text", "end"]
_POSITION = re.compile(r"(\d{1,19})-(\d{1,19})-(\d{1,19})(-end)?", re.ASCII)


class Position(NamedTuple):
    """How far the journal and the live stream were told; as text the id of an event."""

    row: int = 0
    mark: Mark = (0, 0)
    ended: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what str() gave; raises UsageError."""
        found = _POSITION.fullmatch(text)
        if found is None:
            raise UsageError(f"{text!r} is not the id of an event of a run, such as 17-1764097200000-0")
        return cls(int(found[1]), (int(found[2]), int(found[3])), found[4] is not None)

    def at_row(self, row: int) -> Self:
        """Return the position behind a row, too."""
        return self._replace(row=max(row, self.row), ended=False)

    def at_mark(self, mark: Mark) -> Self:
        """Return the position behind an entry of the stream, too."""
        return self._replace(mark=max(mark, self.mark), ended=False)

    def __str__(self) -> str:
        return f"{self.row}-{self.mark[0]}-{self.mark[1]}{'-end' if self.ended else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """One thing that happened to a run; what does not belong to its kind is empty.

    status: it has changed. calls: what the model asks for. output: what came of a call. question: what a person is
    asked. text: a piece of what the model says. end: the last event, with what of the answer had not come as text.
    """

    id: str
    kind: Kind
    at: datetime | None = None
    status: Status
    """Of the run, after it."""
    attempt: int
    step: int | None = None
    offset: int | None = None
    """Characters of the step's text before `text`."""
    text: str | None = None
    restart: bool = False
    """The step is said anew: what came of its text before is void."""
    calls: tuple[dict[str, Any], ...] = ()
    question: str | None = None
    error: dict[str, str | None] | None = None
    delay: float | None = None
    """Seconds until the next attempt."""
    output_text: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what json.dumps takes, without what is empty."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        told["at"] = self.at.isoformat() if self.at else None
        return {name: value for name, value in told.items() if value not in (None, (), False) or name == "offset"}
