"""What happened, seen from the outside: the tables, the provider's counters, and the file that the tools wrote."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from tests.chaos.effects import EXECUTIONS, ONCE
from worker.backends.places import PROTOCOLS
from worker.lifecycle import TERMINAL, Status
from worker.models import Attempt, Message, Outgoing, Run, Thread
from worker.producer import producer


@dataclass(frozen=True, slots=True)
class Expected:
    """A run that was submitted: how it may end, and how many provider runs that takes."""

    id: str
    steps: int
    status: Status = Status.COMPLETED


class Audit:
    """Compares the expected with the rows and with what the provider and the tools have counted."""

    def __init__(
        self, expected: Sequence[Expected], counters: dict[str, Any], data: Path, protocol: str = "responses"
    ) -> None:
        """Take what there is; the protocol says what may be asked for again, and what is one run there."""
        self._can = PROTOCOLS[protocol]
        self._expected = expected
        self._counters = counters
        self._data = data
        with producer().database.read() as connection:
            self._rows = {row.id: row for row in connection.execute(select(Run))}
            self._attempts = list(connection.execute(select(Attempt)))
            self._said = list(connection.execute(select(Message.run_id, Message.role).order_by(Message.id)))
            self._left = connection.execute(select(func.count()).select_from(Outgoing)).scalar_one()
            again = select(Attempt.run_id, func.sum(Attempt.reissued), func.count(Attempt.error_code))
            asked = connection.execute(again.group_by(Attempt.run_id))
            self._again = {run_id: int(reissued + failed) for run_id, reissued, failed in asked}
            self._threads = {row.id: row for row in connection.execute(select(Thread))}

    def faults(self) -> dict[str, list[str]]:
        """Return everything that must not be, by kind; all lists empty where the promises were kept."""
        return {
            "lost": self.lost(),
            "held": [run.id for run in self._rows.values() if run.turn or run.owner is not None],
            "ended otherwise": self.ended_otherwise(),
            "duplicated provider runs": self.duplicated(),
            "unknown although run": self.unknown_although_run(),
            "overlaps": ["the provider counted them"] * self._counters["overlaps"],
            "duplicated outputs": self.outputs_given_twice(),
            "duplicated once effects": self.twice(),
            "order": self.out_of_order(),
            "messages": self.wrong_messages(),
            "untold": ["the outbox"] * self._left,
        }

    def outputs_given_twice(self) -> list[str]:
        """Return the outputs that were given twice; a step that was asked for again brings its outputs again."""
        count = self._counters.get("duplicate_outputs", 0) if self._can.resumes else 0
        return ["the provider counted them"] * count

    def lost(self) -> list[str]:
        """Return the runs that have not ended or are not there at all."""
        found = {one.id: self._rows.get(one.id) for one in self._expected}
        return [run_id for run_id, row in found.items() if row is None or row.status not in TERMINAL]

    def unknown(self) -> list[str]:
        """Return the runs that failed because nobody can tell whether a step was created."""
        return [row.id for row in self._rows.values() if row.error_code == "unknown_outcome"]

    def adopted(self) -> int:
        """Return how many steps were found again in their conversation."""
        return sum(attempt.adopted for attempt in self._attempts)

    def statuses(self) -> dict[str, int]:
        """Return how many runs ended in each status."""
        return dict(Counter(row.status for row in self._rows.values()))

    def ended_otherwise(self) -> list[str]:
        """Return the ended runs with another end than the expected; an unknown outcome is counted apart."""
        wrong = []
        for one in self._expected:
            row = self._rows.get(one.id)
            if row and row.status in TERMINAL and row.status != one.status and row.error_code != "unknown_outcome":
                wrong.append(f"{row.id} in {row.queue}: {row.status}, {row.error_code}, not {one.status}")
        return wrong

    def duplicated(self) -> list[str]:
        """Return the runs with more provider runs than they take, or with a step that was created twice."""
        wrong = [f"{one.id}: {self._made(one.id)} for {one.steps}" for one in self._expected if self._excess(one)]
        if not self._can.resumes:  # what was asked for again is counted, and no more than that may be there twice
            return wrong
        return wrong + ["a step that the provider counted twice"] * self._counters["duplicate_steps"]

    def _excess(self, one: Expected) -> bool:
        row, made = self._rows.get(one.id), self._made(one.id)
        steps = 1 if self._can.holds else one.steps
        completed = row is not None and row.status == Status.COMPLETED == one.status
        if not self._can.resumes:
            return made > steps + self._again.get(one.id, 0) or (completed and made < steps)
        return made != steps if completed else made > steps

    def reissued(self) -> int:
        """Return how many steps were asked for again, since no provider goes on with them."""
        return sum(attempt.reissued for attempt in self._attempts)

    def _made(self, run_id: str) -> int:
        return int(self._counters["by_run"].get(run_id, {"provider_runs": 0})["provider_runs"])

    def unknown_although_run(self) -> list[str]:
        """Return the runs of unknown outcome whose last create did arrive: they should have been adopted."""
        known: Counter[str] = Counter()
        for attempt in self._attempts:
            known[attempt.run_id] += len(attempt.provider_ids) + attempt.adopted
        missed = [run_id for run_id in self.unknown() if self._made(run_id) > known[run_id]]
        return [f"{run_id} in {self._rows[run_id].queue}" for run_id in missed]

    def executions(self) -> Counter[tuple[str, str, str]]:
        """Return how often each call was executed, by tool, run and call."""
        file = self._data / EXECUTIONS
        lines = file.read_text().splitlines() if file.exists() else []
        return Counter((tool, run_id, call_id) for tool, run_id, call_id in map(str.split, lines))

    def twice(self) -> list[str]:
        """Return the calls of `once` tools that were executed more than once."""
        return [" ".join(call) for call, times in self.executions().items() if call[0] in ONCE and times > 1]

    def out_of_order(self) -> list[str]:
        """Return where a run of a thread began before the one before it had ended, here or at the provider."""
        lines: dict[str, list[Any]] = defaultdict(list)
        for row in sorted(self._rows.values(), key=lambda row: row.seq):
            lines[row.thread_id].append(row)
        wrong = [
            f"{after.id} before the end of {before.id}"
            for line in lines.values()
            for before, after in pairwise(line)
            if after.started_at and (before.finished_at is None or before.finished_at > after.started_at)
        ]
        for conversation, ids in self._counters["order"].items():
            seqs = [self._rows[run_id].seq for run_id in ids if run_id in self._rows]
            wrong += [f"conversation {conversation}"] * (seqs != sorted(seqs))
        return wrong

    def wrong_messages(self) -> list[str]:
        """Return the ended runs whose thread does not hold exactly their question, and their answer if there is one."""
        said: dict[str, list[str]] = defaultdict(list)
        for run_id, role in self._said:
            said[run_id].append(role)
        wrong = []
        for row in self._rows.values():
            # A run that was cancelled before it began has said nothing.
            due = ["user", "assistant"] if row.output_text else ["user"]
            if row.status in TERMINAL and row.started_at and said[row.id] != due:
                wrong.append(f"{row.id}: {said[row.id]}")
        return wrong
