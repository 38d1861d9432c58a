"""Runs in their owner's hands: each write of a runner is a unit that gets a Hold, shown owner and fence.

Units of many runs are carried out in one transaction: their rows are locked and read in one statement, and what they
write is gathered, so that equal statements of all of them are one executemany. A run alone costs ten statements for a
commit, of a hundred together each a fraction of one (docs/architecture.md, Commits together).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from sqlalchemy import Connection, Row, Text, bindparam, cast, select
from sqlalchemy.exc import SQLAlchemyError

from worker.errors import LostClaim
from worker.lifecycle import Status
from worker.models import COST_DIGITS, Attempt, Batch, EventRow, Run, Spending, Thread, ToolCall
from worker.response import Usage
from worker.store import locks
from worker.store.claiming import Claim
from worker.store.database import one_trip
from worker.store.gathered import Gathered

P = ParamSpec("P")
T = TypeVar("T")
Unit = Callable[..., Any]

_ROWS = (
    select(
        Run.id,
        Run.owner,
        Run.fence,
        Run.status,
        Run.step,
        Run.cancel_requested_at.is_not(None).label("cancel_asked"),
        Run.input_tokens,
        Run.output_tokens,
        Run.cost_usd,
        Thread.provider_id.label("conversation"),
        Attempt.provider_id,
        cast(Attempt.provider_ids, Text).label("provider_ids"),  # to be read by the one unit that adds to them
        Attempt.adopted,
        Attempt.reissued,
        Attempt.crashes,
        Batch.budget_usd,
    )
    .join(Thread, Thread.id == Run.thread_id)
    .outerjoin(Attempt, (Attempt.run_id == Run.id) & (Attempt.number == Run.attempt))
    .outerjoin(Batch, Batch.id == Run.batch_id)
    .where(Run.id.in_(bindparam("runs", expanding=True)))
    .order_by(Run.id)
)
_WAITING_FOR_IT = _ROWS.with_for_update(of=Run)
_UNLOCKED_ONES = _ROWS.with_for_update(of=Run, skip_locked=True)
_UNFINISHED = select(ToolCall.run_id, ToolCall.call_id).where(
    ToolCall.run_id.in_(bindparam("runs", expanding=True)), ToolCall.finished_at.is_(None)
)
_MOST = 2**31 - 1  # what PostgreSQL's integer holds
_under_thread: set[Unit] = set()


class Busy(Exception):
    """Somebody else holds a row that the unit needs: it is to be carried out alone, where it may wait."""


@dataclass(frozen=True, slots=True)
class Job:
    """A unit of one held run, to be carried out with others."""

    claim: Claim
    unit: Unit
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


class Outcome(NamedTuple):
    """What a job returned, or the exception that it ended with: nothing of it is written then."""

    result: Any = None
    error: Exception | None = None


def under_thread(unit: Callable[P, T]) -> Callable[P, T]:
    """Mark a unit that may change the turn or the conversation: its thread is locked before its run."""
    _under_thread.add(unit)
    return unit


class Group:
    """What the jobs of one transaction share: the connection, and what is read once for all of them."""

    def __init__(self, connection: Connection, jobs: Sequence[Job]) -> None:
        self.connection = connection
        self._runs = [job.claim.run_id for job in jobs]
        self._threads = [job.claim.thread_id for job in jobs]

    @cached_property
    def unfinished(self) -> set[tuple[str, str]]:
        """Return the (run, call) pairs that have no output yet."""
        return {(run, call) for run, call in self.connection.execute(_UNFINISHED, {"runs": self._runs}).all()}

    @cached_property
    def next_in_line(self) -> dict[str, locks.Waiting]:
        """Return the first waiting run of each thread that has one; only under the threads' locks."""
        return locks.first_waiting(self.connection, self._threads)


class Hold:
    """One held run inside a transaction: its locked row, and what is to be written of it."""

    __slots__ = ("_attempt", "_run", "before", "claim", "connection", "group", "row", "writes")

    def __init__(self, group: Group, claim: Claim, row: Row[*tuple[Any, ...]]) -> None:
        self.group = group
        self.claim = claim
        self.row = row
        self.connection = group.connection
        self.writes = Gathered()
        self.before = Gathered()
        """What writes of other units of the transaction may refer to."""
        self._run: dict[str, Any] = {}
        self._attempt: dict[str, Any] = {}

    @property
    def status(self) -> Status:
        """Return the run's status before this unit."""
        return Status(self.row.status)

    def change(self, **values: Any) -> None:
        """Update the run's row; a later value of a column wins."""
        self._run |= values

    def change_attempt(self, **values: Any) -> None:
        """Update the row of the run's attempt."""
        self._attempt |= values

    def change_thread(self, **values: Any) -> None:
        """Update the row of the run's thread."""
        self.writes.update(Thread, {"id": self.claim.thread_id}, values)

    def note(self, name: str, **data: Any) -> None:
        """Append an event of the run; data is JSON and holds no message text."""
        claim = self.claim
        values = {"run_id": claim.run_id, "name": name, "attempt": claim.attempt, "worker": claim.worker, "data": data}
        self.writes.insert(EventRow, values)

    def add_usage(self, usage: Usage) -> None:
        """Add the tokens of one response to the run's, and what they cost; what is unknown adds nothing."""
        if usage.input_tokens is None or usage.output_tokens is None:
            return
        row, cost = self.row, usage.cost_usd
        self.change(
            input_tokens=min(_MOST, (row.input_tokens or 0) + usage.input_tokens),
            output_tokens=min(_MOST, (row.output_tokens or 0) + usage.output_tokens),
            cost_usd=None if cost is None else round((row.cost_usd or 0.0) + cost, COST_DIGITS),
        )
        if cost and row.budget_usd is not None:
            self.writes.insert(Spending, {"batch_id": self.claim.batch_id, "cost_usd": cost})

    def adopt(self, step: int) -> None:
        """Keep that the result of a step was found in the conversation."""
        self.change_attempt(intent_step=None, adopted=self.row.adopted + 1)
        self.note("adopted", step=step)

    def own(self) -> Gathered:
        """Return what of all units goes first: what they wrote of their run itself, before a turn is passed on."""
        first, claim = self.before, self.claim
        if self._run:
            first.update(Run, {"id": claim.run_id}, self._run)
        if self._attempt:
            first.update(Attempt, {"run_id": claim.run_id, "number": claim.attempt}, self._attempt)
        return first


def carry_out(connection: Connection, jobs: Sequence[Job], *, alone: bool = False) -> list[Outcome]:
    """Carry out one job each of some runs in this transaction; returns their outcomes in order.

    None waits for a row that somebody else holds, so that nobody's long transaction holds up the others: such a job
    ends with Busy. `alone` lets the one job wait. Of all jobs are written first the rows that others refer to, then
    each run's own, since an end gives up its turn, then turns that are passed on and all the rest.
    """
    group = Group(connection, jobs)
    threads = sorted({job.claim.thread_id for job in jobs if job.unit in _under_thread})
    locked = locks.lock_all(connection, threads, wait=alone)
    ids = sorted(job.claim.run_id for job in jobs)
    found = connection.execute(_WAITING_FOR_IT if alone else _UNLOCKED_ONES, {"runs": ids}).all()
    rows = {row.id: row for row in found}
    own, others = Gathered(), Gathered()
    outcomes = []
    for job in jobs:
        free = alone or (job.claim.run_id in rows and (job.unit not in _under_thread or job.claim.thread_id in locked))
        outcomes.append(
            _carry_out(group, job, rows.get(job.claim.run_id), own, others) if free else Outcome(error=Busy())
        )
    with one_trip(connection):
        own.write(connection)
        others.write(connection)
    return outcomes


def _carry_out(group: Group, job: Job, row: Row[*tuple[Any, ...]] | None, own: Gathered, others: Gathered) -> Outcome:
    claim = job.claim
    if row is None or (row.owner, row.fence) != (claim.worker, claim.fence):
        return Outcome(error=LostClaim(f"run {claim.run_id} is no longer held under fence {claim.fence}"))
    hold = Hold(group, claim, row)
    try:
        result = job.unit(hold, *job.args, **job.kwargs)
    except SQLAlchemyError:
        raise  # the transaction is spoilt for all of them
    except Exception as error:  # noqa: BLE001 - it belongs to whoever asked for this job, not to the others
        return Outcome(error=error)
    own.add(hold.own())
    others.add(hold.writes)
    return Outcome(result)


def commit(
    connection: Connection, claim: Claim, unit: Callable[Concatenate[Hold, P], T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Carry out one unit of one run on this connection; raises LostClaim and what the unit raises."""
    (outcome,) = carry_out(connection, [Job(claim, unit, args, kwargs)], alone=True)
    if outcome.error is not None:
        raise outcome.error
    result: T = outcome.result
    return result
