"""Proves the invariants from the tables and the provider, and mends what can be mended while workers run."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from sqlalchemy import Connection

from worker.backends.places import Place
from worker.care.errands import Errand, Send, Target
from worker.errors import SchemaError
from worker.settings import Settings
from worker.store import auditing, repairing, schema
from worker.store.auditing import Finding
from worker.store.database import Database

Level = Literal["wrong", "warn", "info"]
_ROUNDS = 100
_DUE = "makes the run due now"
_NO_INDEX = "the index uq_runwright_runs_turn is gone: `runwright cancel` all but one of the runs, make it again"
_NO_TURN = (
    "no command mends it: read `runwright show ID --events`; "
    "where no other run of its thread has the turn, set turn and due_at of its row"
)
_LEASES = 6.0
"""Leases after which a dead worker that nobody has reaped is a finding."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold: how to find where it does not, and how to mend one finding by its subject.

    `cure` says what mending does, `hint` what a person does about findings that are not mended.
    """

    name: str
    level: Level
    holds: str
    find: Callable[[Connection], list[Finding]]
    cure: str | None = None
    mend: Callable[[Connection, str], bool] | None = None
    hint: str | None = None


@dataclass(slots=True)
class Verdict:
    """What a check came to: `findings` are those that are left, `mended` counts those that are not."""

    name: str
    level: Level
    holds: str
    cure: str | None = None
    hint: str | None = None
    findings: Sequence[Finding] = ()
    mended: int = 0
    skipped: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> bool:
        """Tell whether it makes the whole examination fail."""
        return self.level == "wrong" and bool(self.findings)


def checks(settings: Settings) -> list[Check]:
    """Return the checks of the tables, in the order in which they are to be mended."""
    return [*_of_holding(_LEASES * settings.lease), *_of_turns(), *_of_questions(settings.approval_timeout), *_REMARKS]


def _of_holding(lease: float) -> list[Check]:
    reaped = "no worker's lease ran out long ago without its runs being taken from it"
    dead, reap = partial(auditing.dead_workers, lease=lease), partial(repairing.reap, lease=lease)
    held = "every held run is held by a worker that is there"
    due = "every run with the turn and without an owner has a due time"
    return [
        Check("leases", "wrong", reaped, dead, "makes its runs due and takes its row away", reap),
        Check("owners", "wrong", held, auditing.orphans, _DUE, repairing.release),
        Check("due times", "wrong", due, auditing.never_due, _DUE, repairing.make_due),
    ]


def _of_turns() -> list[Check]:
    clear, pass_on = "clears them and passes the turn on", "passes the turn to the first that waits"
    ends = "no ended run has a turn, an owner or a due time"
    waiting = "where runs wait for their thread, one has the turn"
    begun = "every run that has begun and not ended has the turn"
    return [
        Check("turns", "wrong", "no thread has more than one turn", auditing.several_turns, hint=_NO_INDEX),
        Check("ends", "wrong", ends, auditing.ends_with_a_hold, clear, repairing.clear_end),
        Check("waiting", "wrong", waiting, auditing.lost_turns, pass_on, repairing.pass_turn),
        Check("stranded", "wrong", begun, auditing.stranded, hint=_NO_TURN),
    ]


def _of_questions(seconds: float) -> list[Check]:
    ends = "every question to a person has a time by which it is answered"
    late = "a run goes on when nobody has answered in time"
    limit, set_limit = f"gives it {seconds:g} seconds from now", partial(repairing.set_limit, seconds=seconds)
    return [
        Check("questions", "wrong", ends, auditing.endless_questions, limit, set_limit),
        Check("late questions", "wrong", late, auditing.late_questions, _DUE, repairing.end_question),
    ]


def _remark(name: str, level: Level, holds: str, find: Callable[[Connection], list[Finding]], hint: str) -> Check:
    return Check(name, level, holds, find, hint=hint)


_REMARKS = (
    _remark(
        "outputs",
        "warn",
        "no output of a completed run was left unsubmitted",
        auditing.unsubmitted,
        "the thread's next run submits it; `runwright show ID --events` tells how it was left",
    ),
    _remark(
        "queues",
        "warn",
        "every queue with due runs is served by a living worker",
        auditing.unserved,
        "start a worker with `-Q runwright.QUEUE`, or `runwright cancel --queue QUEUE`",
    ),
    _remark(
        "outbox",
        "warn",
        "nothing has been in the outbox for ten minutes",
        auditing.untold,
        "any worker sends it: look for delivery_failed and delivery_waits in the workers' logs",
    ),
    _remark(
        "batches",
        "warn",
        "the producer of every batch that ended has been told",
        auditing.unended_batches,
        "any worker tells it: see with `runwright status` that one is there, then look into its log",
    ),
    _remark(
        "open calls",
        "info",
        "no run that ended has left a call without an output",
        auditing.unanswered,
        "nothing: each is answered before its conversation is used again",
    ),
    _remark(
        "unknown outcomes",
        "info",
        "of every run it is known what the provider has created for it",
        auditing.unknown_outcomes,
        "`runwright retry --error unknown_outcome` where a second response may be paid for",
    ),
)


def examine(
    database: Database, settings: Settings, *, fix: bool = False, tell: Callable[[str], None] = lambda _name: None
) -> list[Verdict]:
    """Look at the tables; with `fix` mend what can be mended. `tell` gets the name of each check as it begins."""
    asked = Verdict("schema", "wrong", "the schema is this version's")
    try:
        schema.check(database)
    except SchemaError as error:
        asked.findings = [Finding("schema", str(error))]
        return [asked]
    verdicts = [asked]
    for check in checks(settings):
        tell(check.name)
        verdicts.append(_examine(database, check, fix=fix))
    return verdicts


def _examine(database: Database, check: Check, *, fix: bool) -> Verdict:
    verdict = Verdict(check.name, check.level, check.holds, check.cure, check.hint, _look(database, check))
    for _ in range(_ROUNDS if fix and check.mend else 0):
        mended = sum(_mend(database, check, subject) for subject in {one.subject for one in verdict.findings})
        verdict.mended += mended
        verdict.findings = _look(database, check)
        if not mended:
            break
    return verdict


def _look(database: Database, check: Check) -> list[Finding]:
    with database.read() as connection:
        return check.find(connection)


def _mend(database: Database, check: Check, subject: str) -> bool:
    with database.write() as connection:
        return check.mend is not None and check.mend(connection, subject)


def steps_of_ended_runs(database: Database, hours: float) -> dict[Target, str]:
    """Return the last known steps of runs that ended within so many hours, each with its run.

    Those of a place that does not go on with a step by itself are gone with their worker.
    """
    found: dict[Target, str] = {}
    after = ""
    while True:
        with database.read() as connection:
            runs = auditing.recently_ended(connection, hours, after)
            steps = auditing.last_steps(connection, runs)
        for step, place, run_id in steps:
            if Place.parse(place).can.resumes:
                found[Target(step, place)] = run_id
        if len(runs) < auditing.MOST:
            return found
        after = runs[-1]


def at_the_provider(
    database: Database,
    runs: dict[Target, str],
    send: Send,
    *,
    fix: bool = False,
    tell: Callable[[], None] = lambda: None,
) -> Verdict:
    """Ask the providers whether steps still go on whose run has ended; with `fix` cancel them.

    `runs` gives the run of each step; `tell` is called after each look.
    """
    verdict = Verdict("provider", "wrong", "no response of an ended run is still active", "cancels it at the provider")
    errors: Counter[str] = Counter()
    active: list[Target] = []
    for outcome in send(Errand.LOOK, list(runs)):
        tell()
        if outcome.error:
            errors[outcome.error] += 1
        elif outcome.active:
            active.append(outcome.target)
    if errors.total() == len(runs) and runs:
        verdict.skipped = f"the provider could not be asked: {errors.most_common(1)[0][0]}"
        return verdict
    verdict.notes = [f"{count} could not be asked: {error}" for error, count in errors.most_common(3)]
    # A run may have been reopened since: whatever it does now is its owner's.
    with database.read() as connection:
        ended = auditing.ended(connection, {runs[one] for one in active})
    active = [one for one in active if runs[one] in ended]
    cancelled = {one.target for one in send(Errand.CANCEL, active) if one.error is None} if fix else set()
    verdict.mended = len(cancelled)
    verdict.findings = [Finding(runs[one], one.id) for one in active if one not in cancelled]
    return verdict
