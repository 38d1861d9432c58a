"""One run as it goes on: its journal, which is the truth, and between the rows the text that is said live.

What is told comes from the journal and the run's row; the live stream gives the text and says when to look. Without it
the journal is looked at now and then, and the end brings the answer whole. A watcher always reads both from their
beginnings and tells what lies behind the event that it goes on from: so nothing is told twice, nor left out.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

from redis.asyncio import Redis as AsyncRedis

from worker.lifecycle import TERMINAL, Status
from worker.store import reading
from worker.store.database import Database
from worker.store.reading import RunView
from worker.watching.live import TEXT, Entry, Live, Mark, read_async
from worker.watching.said import Said
from worker.watching.telling import Position, RunEvent

_LOOK = 0.5  # seconds of silence after which the journal is looked at all the same
_LONGEST = 2.0  # seconds after which it is, also while there is text
# The status that each row of the journal leaves; the others leave it as it was.
_LEAVES = {
    "submitted": Status.QUEUED,
    "claimed": Status.IN_PROGRESS,
    "created": Status.IN_PROGRESS,
    "adopted": Status.IN_PROGRESS,
    "requires_action": Status.REQUIRES_ACTION,
    "parked": Status.REQUIRES_ACTION,
    "cancelling": Status.CANCELLING,
    "retried": Status.QUEUED,
    "reopened": Status.QUEUED,
    **{status.value: status for status in TERMINAL},
}
_KINDS = {
    "requires_action": "calls",
    "tool_finished": "output",
    "tool_written_off": "output",
    "hosted_calls": "output",
    "denied": "output",
    "answered": "output",
    "asked": "question",
}
_ASKED = ("call_id", "name", "arguments")
_ANSWERED = (*_ASKED, "status", "error", "output", "seconds", "hosted")


class Watcher:
    """Tells what happens to one run, from an event on, until it has ended."""

    def __init__(self, database: Database, live: Live | None, run_id: str, after: str | None = None) -> None:
        """Read nothing yet; raises UsageError for what is not the id of an event."""
        self._database = database
        self._live = live
        self._run_id = run_id
        self._after = Position.parse(after) if after else Position()
        self._place = self._after
        self._rows: deque[Mapping[str, Any]] = deque()
        self._read_to = 0
        self._heard_to: Mark = (0, 0)
        self._next_look = -math.inf
        self._view: RunView
        self._ended = False
        self._over = False
        self._status: Status | None = None
        self._step = 0
        self._said = Said()

    def events(self, timeout: float | None = None) -> Iterator[RunEvent]:
        """Give the events as they come; raises TimeoutError after so many seconds, UnknownRun for no run."""
        ends_at = math.inf if timeout is None else time.monotonic() + timeout
        heard = self._hear(0.0)
        self._look()
        while True:
            yield from self._told(heard)
            if self._over:
                return
            left = ends_at - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"run {self._run_id} is still {self._view.status} after {timeout:g} s")
            heard = self._hear(min(_LOOK, left))

    async def events_async(self) -> AsyncIterator[RunEvent]:
        """Give the same beside a running loop: only for its short looks at the database it takes a thread."""
        async with AsyncExitStack() as ends:
            client = await ends.enter_async_context(self._live.connect()) if self._live else None
            heard = await self._hear_async(client, 0.0)
            await asyncio.to_thread(self._look)
            while not self._over:
                for event in await asyncio.to_thread(list, self._told(heard)):
                    yield event
                if not self._over:
                    heard = await self._hear_async(client, _LOOK)

    def _told(self, heard: list[tuple[Mark, Entry]]) -> Iterator[RunEvent]:
        """Tell what was heard, and what a look that is due finds."""
        for mark, entry in heard:
            yield from self._take(mark, entry)
        if not heard or time.monotonic() >= self._next_look:
            self._look()
            yield from self._through(len(self._rows))
        if self._ended and not self._rows:
            yield from self._end()
            self._over = True

    async def _hear_async(self, client: AsyncRedis | None, seconds: float) -> list[tuple[Mark, Entry]]:
        heard = await read_async(client, self._run_id, self._heard_to, seconds) if client else None
        if heard is None:
            await asyncio.sleep(seconds)
        return heard or []

    def _hear(self, seconds: float) -> list[tuple[Mark, Entry]]:
        heard = self._live.read(self._run_id, self._heard_to, seconds) if self._live else None
        if heard is None:
            time.sleep(seconds)
        return heard or []

    def _take(self, mark: Mark, entry: Entry) -> Iterator[RunEvent]:
        """Tell one entry: a piece of text, or the rows that led to the one that it names."""
        self._heard_to = mark
        if entry.fence < self._said.fence:  # of a worker that has lost the run
            return
        if entry.name != TEXT:
            self._said.fence = entry.fence
            yield from self._through(self._named(entry.name))
            return
        restart = self._said.take(entry)
        if mark > self._after.mark:
            self._place = self._place.at_mark(mark)
            where = {"attempt": entry.attempt, "step": entry.step, "offset": entry.offset}
            yield self._event("text", None, **where, text=entry.text, restart=restart)

    def _named(self, name: str) -> int:
        """Return how many rows lead to the first of this name, that one included; 0 where it was told already."""
        if not any(row["name"] == name for row in self._rows):
            self._look()
        return next((count for count, row in enumerate(self._rows, 1) if row["name"] == name), 0)

    def _look(self) -> None:
        """Read what is new in the journal, and the run.

        On PostgreSQL each statement sees what is committed by then: read in this order, a run that has ended has all
        of its rows, and each row what it tells of in the ledger. One that ended in between has them where its end is
        the last of them.
        """
        with self._database.read() as connection:
            status = reading.status(connection, self._run_id)
            new = reading.news(connection, self._run_id, self._read_to)
            self._view = reading.run(connection, self._run_id)
        last = new[-1]["name"] if new else None
        self._ended = self._view.ended and (status in TERMINAL or last in TERMINAL)
        self._rows += new
        self._read_to = new[-1]["id"] if new else self._read_to
        self._next_look = time.monotonic() + _LONGEST

    # ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _through(self, count: int) -> Iterator[RunEvent]:
        for _ in range(count):
            row = self._rows.popleft()
            event = self._of(row)
            if event and row["id"] > self._after.row:
                yield event

    def _of(self, row: Mapping[str, Any]) -> RunEvent | None:
        """Say what a row means; None for one that changes nothing a watcher sees, and for the end, told apart."""
        name, data, before = row["name"], row["data"], self._status
        if name == "claimed" and before not in (None, Status.QUEUED):
            return None
        self._status = _LEAVES.get(name, before)
        self._step = data.get("step", self._step) if name in ("created", "adopted") else self._step
        if name in TERMINAL and self._ended and row["id"] == self._read_to:
            return None
        kind = _KINDS.get(name, "status")
        if kind == "status" and self._status == before:
            return None
        self._place = self._place.at_row(row["id"])
        told = {"attempt": row["attempt"], "error": _error(data), "delay": data.get("delay"), "calls": self._calls(row)}
        return self._event(kind, row["at"], **told, question=data.get("question"))

    def _calls(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """Return the calls that a row is about, as the ledger has them."""
        data, ledger = row["data"], {call["call_id"]: call for call in self._view.tool_calls}
        match row["name"]:
            case "requires_action":
                asked = [ledger[ident] for ident in data.get("calls", ()) if ident in ledger]
                return tuple({key: call[key] for key in _ASKED} for call in asked)
            case "tool_finished" | "tool_written_off" | "denied" | "answered":
                call = ledger.get(data["call_id"], {"call_id": data["call_id"], "error": data.get("error")})
                return ({key: call[key] for key in _ANSWERED if key in call},)
            case "hosted_calls":
                return tuple(
                    {key: ledger[ident][key] for key in _ANSWERED} for ident in data["calls"] if ident in ledger
                )
            case "asked":
                return tuple({"name": tool} for tool in data["tools"])
        return ()

    def _end(self) -> Iterator[RunEvent]:
        """Tell the end, with the text that had not come before."""
        if self._after.ended and self._read_to <= self._after.row:
            return
        view, step = self._view, self._step
        lost = self._after.mark > self._heard_to
        offset, text, restart = self._said.rest(view.output_text or "", step, lost=lost)
        self._status = view.status
        self._place = self._place.at_row(self._read_to)._replace(ended=True)
        told = {"attempt": view.attempts, "error": view.error, "output_text": view.output_text}
        where = {"step": step, "offset": offset, "text": text, "restart": restart} if text else {}
        yield self._event("end", view.finished_at, **told, **where)

    def _event(self, kind: Any, at: Any, **told: Any) -> RunEvent:
        return RunEvent(id=str(self._place), kind=kind, at=at, status=self._status or self._view.status, **told)


def _error(data: Mapping[str, Any]) -> dict[str, str | None] | None:
    return {"code": data["code"], "message": None} if data.get("code") else None
