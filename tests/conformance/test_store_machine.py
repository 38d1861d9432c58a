"""The store under anything that can happen, in any order: after each step the rows say what the rules say."""

import os
from itertools import groupby
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Row, delete, select, update

from tests.conformance.ground import Ground
from tests.conformance.replay import Replay, journal, replay
from worker.dbtime import from_now
from worker.errors import KeyReused, LostClaim, UsageError
from worker.lifecycle import ACTIVE, REOPENABLE, TERMINAL, Event, InvalidMove, Status
from worker.models import Assistant, Base, Run, Worker
from worker.response import Asked, Usage
from worker.store import asking, claiming, leases, progress, settling, submitting
from worker.store.claiming import Claim
from worker.store.settling import End

NAMES = ["w1", "w2", "w3"]
QUEUES = ["fast", "slow"]
PICK = st.integers(0, 999)
WORKER = st.sampled_from(NAMES)
THREAD = st.sampled_from(["a", "b", "c"])
END = st.sampled_from([Event.COMPLETE, Event.STOP_SHORT, Event.FAIL, Event.EXPIRE, Event.CANCEL])
FAILED = End(Event.FAIL, error_code="e")
RUN = st.fixed_dictionaries(
    {
        "thread": THREAD,
        "queue": st.sampled_from(QUEUES),
        "priority": st.sampled_from([0, 5, 9]),
        "idempotency_key": st.sampled_from([None, None, None, "k1", "k2"]),
    }
)


class Store(RuleBasedStateMachine):
    """Three workers and some producers on one database, each move on whichever connection of the pool is free.

    No rule has a precondition: which of two equally old runs a claim takes is the database's choice, so a condition on
    the rows would make the same examples draw differently, which hypothesis takes for a flaky test.
    """

    def __init__(self, ground: Ground) -> None:
        super().__init__()
        self.ground = ground
        self.held: dict[str, Claim] = {}
        self.lost: list[Claim] = []
        self.alive: dict[str, str] = {}
        self.boots = 0
        self.rows: list[Row[Any]] = []

    @initialize()
    def begin(self) -> None:
        with self.ground.database.write() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                if table is not Assistant.__table__:
                    connection.execute(delete(table))
        for name in NAMES:
            self._boot(name)
        self.ground.write(submitting.submit, [self.ground.new(thread, queue="fast") for thread in "aabbcc"])

    # ── producers and people ──────────────────────────────────────────────────────────────────────────────────────

    @rule(asked=st.lists(RUN, min_size=1, max_size=4))
    def submit(self, asked: list[dict[str, Any]]) -> None:
        runs = [self.ground.new(**options) for options in asked]
        keys: dict[str, Any] = {row.idempotency_key: row.thread_id for row in self.rows if row.idempotency_key}
        clash = [run for run in runs if keys.setdefault(run.idempotency_key or run.id, run.thread_id) != run.thread_id]
        try:
            accepted = self.ground.write(submitting.submit, runs)
        except KeyReused:
            assert clash
        else:
            assert not clash
            assert [run.thread_id for run in accepted] == [run.thread_id for run in runs]

    @rule(pick=PICK)
    def ask_cancel(self, pick: int) -> None:
        before = self._picked(self.rows, pick)
        status, _ = self.ground.write(asking.ask_cancel, before.id)
        free = before.status == Status.QUEUED and before.owner is None
        assert status == (Status.CANCELLED if free else before.status)

    @rule(pick=PICK)
    def reopen(self, pick: int) -> None:
        before = self._picked(self.rows, pick)
        try:
            self.ground.write(asking.reopen, before.id)
        except UsageError:
            assert before.status not in REOPENABLE
        else:
            assert before.status in REOPENABLE
            assert self.ground.status(before.id) is Status.QUEUED

    # ── workers ───────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(name=WORKER, queues=st.sampled_from([QUEUES, QUEUES[:1], QUEUES[1:]]), limit=st.integers(1, 4))
    def claim(self, name: str, queues: list[str], limit: int) -> None:
        worker, now = self.alive[name], self.ground.now()
        rows = [row for row in self._rows() if row.due_at and row.due_at <= now and row.queue in queues]
        # What goes on goes first; priority says who begins.
        due = {row.id: (row.status != "queued" or row.cancel_requested_at is not None, row.priority) for row in rows}
        if due and worker not in self._living():
            with pytest.raises(LostClaim):
                self.ground.write(claiming.claim, worker, queues, limit)
            return
        claims = self.ground.write(claiming.claim, worker, queues, limit)
        assert [due[claim.run_id] for claim in claims] == sorted(due.values(), reverse=True)[:limit]
        self.held.update({claim.run_id: claim for claim in claims})

    @rule(pick=PICK, event=END)
    def settle(self, pick: int, event: Event) -> None:
        for claim in self._at_hand(pick):
            asked = self.ground.row(claim.run_id).cancel_requested_at
            settled = self.ground.commit(claim, settling.settle, End(event, "text", usage=Usage(1, 1, 0.1)))
            assert not asked or settled.status is Status.CANCELLED
            self._forget([claim])

    @rule(pick=PICK, delay=st.sampled_from([0.0, 3600.0]))
    def retry(self, pick: int, delay: float) -> None:
        for claim in self._at_hand(pick):
            if self.ground.status(claim.run_id) is Status.CANCELLING:
                with pytest.raises(InvalidMove):
                    self.ground.commit(claim, settling.retry, delay, FAILED, 60.0)
            else:
                self.ground.commit(claim, settling.retry, delay, FAILED, 60.0)
                self._forget([claim])

    @rule(pick=PICK)
    def hand_over(self, pick: int) -> None:
        for claim in self._at_hand(pick):
            self.ground.hand_over(claim)
            self._forget([claim])

    @rule(pick=PICK)
    def go_on(self, pick: int) -> None:
        """The run's next step: its tools are asked for, or their outputs submitted, or the cancel is carried out."""
        for claim in self._at_hand(pick):
            row = self.ground.row(claim.run_id)
            if row.cancel_requested_at or row.status == Status.CANCELLING:
                self.ground.commit(claim, settling.start_cancelling)
            elif row.status == Status.IN_PROGRESS:
                calls, usage = [Asked(f"c{row.fence}-{row.step}", "add", "{}")], Usage(1, 1, 0.1)
                self.ground.commit(
                    claim, progress.need_tools, effects={}, step=row.step, calls=calls, usage=usage, last_item=None
                )
            else:
                self.ground.commit(claim, progress.created, row.step, f"resp_{row.step}")

    @rule(name=WORKER, found=st.booleans())
    def die(self, name: str, found: bool) -> None:
        """A worker stops renewing its lease with its hands full; the reaper comes now or some moves later."""
        self.claim(name, QUEUES, 4)
        self._change(update(Worker).where(Worker.id == self.alive[name]).values(lease_until=from_now(-1)))
        if found:
            self.reap()

    @rule(name=WORKER)
    def renew(self, name: str) -> None:
        self.ground.write(leases.renew, self.alive[name], 600.0)
        assert self.alive[name] in self._living()

    @rule()
    def reap(self) -> None:
        dead = set(self.alive.values()) - self._living()
        lost = [claim for claim in self.held.values() if claim.worker in dead]
        assert self.ground.write(leases.reap) == len(lost)
        for name in [name for name, worker in self.alive.items() if worker in dead]:
            self._boot(name)
        self._forget(lost)

    @rule(name=WORKER)
    def restart(self, name: str) -> None:
        lost = [claim for claim in self.held.values() if claim.worker == self.alive[name]]
        assert self.ground.write(leases.leave, self.alive[name]) == len(lost)
        self._boot(name)
        self._forget(lost)

    @rule(pick=PICK, write=st.sampled_from([settling.start_cancelling, progress.withdraw]))
    def write_late(self, pick: int, write: Any) -> None:
        if self.lost:
            self._refused(write, self._picked(self.lost, pick))

    @rule(pick=PICK, event=END)
    def settle_late(self, pick: int, event: Event) -> None:
        if self.lost:
            self._refused(settling.settle, self._picked(self.lost, pick), End(event))

    @rule()
    def time_passes(self) -> None:
        self._change(update(Run).where(Run.due_at.is_not(None)).values(due_at=from_now(-1)))

    # ── what always holds ─────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def what_always_holds(self) -> None:
        """Read everything once and hold it against the rules."""
        self.rows = self._rows()
        with self.ground.database.read() as connection:
            workers = set(connection.execute(select(Worker.id)).scalars())
            told = replay(journal(connection))
        for row in self.rows:
            self._is_whole(row, workers)
        owners = {row.id: (row.owner, row.fence) for row in self.rows if row.owner}
        assert owners == {claim.run_id: (claim.worker, claim.fence) for claim in self.held.values()}
        self._turns_follow_the_rule(told)
        self._places_have_no_gap()

    def _is_whole(self, row: Row[Any], workers: set[str]) -> None:
        """A held run has a worker's row and its turn; one with the turn and no owner is due; all others are neither."""
        assert (row.finished_at is not None) == (row.status in TERMINAL), row
        assert row.turn or (row.owner, row.due_at) == (None, None), row
        assert row.turn or row.status in TERMINAL or row.status == Status.QUEUED, row
        assert not row.turn or row.status in ACTIVE, row
        assert not row.turn or (row.owner is None) != (row.due_at is None), row
        assert row.owner is None or (row.owner in workers and row.status != Status.QUEUED), row

    def _turns_follow_the_rule(self, told: Replay) -> None:
        """One turn for each thread with an active run, and it is where the journal says that it must be."""
        assert told.overlaps == told.order_faults == []
        assert [(row.thread_id, row.seq) for row in self.rows if row.turn] == sorted(told.turns().items())
        assert set(told.turns()) == {row.thread_id for row in self.rows if row.status in ACTIVE}

    def _places_have_no_gap(self) -> None:
        """The runs of a thread are numbered 1, 2, 3 …; refused and doubled submits leave no hole."""
        for thread, line in groupby(self.rows, key=attrgetter("thread_id")):
            places = [row.seq for row in line]
            assert places == list(range(1, len(places) + 1)), thread

    # ── plumbing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _rows(self) -> list[Row[Any]]:
        with self.ground.database.read() as connection:
            return list(connection.execute(select(Run).order_by(Run.thread_id, Run.seq)).all())

    def _living(self) -> set[str]:
        with self.ground.database.read() as connection:
            return set(connection.execute(select(Worker.id).where(Worker.lease_until > from_now())).scalars())

    def _boot(self, name: str) -> None:
        self.boots += 1
        self.alive[name] = self.ground.boot(f"{name}-{self.boots}", queues=QUEUES)

    def _picked(self, items: list[Any], pick: int) -> Any:
        return items[pick % len(items)]

    def _at_hand(self, pick: int) -> list[Claim]:
        """Return one of the held runs; where there is none a worker claims first, which may find nothing."""
        if not self.held:
            self.claim(NAMES[pick % len(NAMES)], QUEUES, 4)
        return [self._picked(list(self.held.values()), pick)] if self.held else []

    def _forget(self, claims: list[Claim]) -> None:
        for claim in claims:
            self.lost.append(self.held.pop(claim.run_id))

    def _refused(self, write: Any, claim: Claim, *args: Any) -> None:
        before = self.ground.everything()
        with pytest.raises(LostClaim):
            self.ground.commit(claim, write, *args)
        assert self.ground.everything() == before

    def _change(self, statement: Any) -> None:
        with self.ground.database.write() as connection:
            connection.execute(statement)


def test_no_order_of_moves_breaks_the_rules(ground: Ground) -> None:
    """Expected: no overlap, no order fault, no run that nobody will look at again, in whatever order things happen."""

    class OnGround(Store):
        def __init__(self) -> None:
            super().__init__(ground)

    run_state_machine_as_test(
        OnGround,
        settings=settings(
            max_examples=15,
            stateful_step_count=40,
            deadline=None,
            derandomize=bool(os.environ.get("CI")),
            suppress_health_check=[HealthCheck.too_slow],
            database=None,
            phases=[
                Phase.generate
            ],  # shrinking takes longer than a test may; the steps that failed are shown as they are
        ),
    )
