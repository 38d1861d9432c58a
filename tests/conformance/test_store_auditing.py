"""The doctor: what is broken is found, and mended where that is safe; a sound database has no findings."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import insert, text, update

from tests.conformance.ground import PLACE, Ground
from worker.backends.places import Place
from worker.care import doctor
from worker.care.errands import Errand, Outcome, Target
from worker.dbtime import from_now
from worker.lifecycle import Event, Status
from worker.models import Batch, Outgoing, Run, Thread, ToolCall, Worker
from worker.response import Opened
from worker.settings import Settings
from worker.store import progress, schema, settling
from worker.store.claiming import Claim
from worker.store.settling import End

Break = Callable[[Ground, str], None]
FAILED = End(Event.FAIL, error_code="server_error")
CALL = {"call_id": "c1", "step": 0, "position": 0, "attempt": 1, "name": "add", "arguments": "{}", "starts": 1}


def examined(ground: Ground, *, fix: bool = False) -> dict[str, tuple[int, int]]:
    """Return, by name, what was left and what was mended, of the checks that say something."""
    verdicts = doctor.examine(ground.database, Settings.from_env({}), fix=fix)
    return {one.name: (len(one.findings), one.mended) for one in verdicts if one.findings or one.mended}


def change(ground: Ground, run_id: str, **values: Any) -> None:
    ground._change(update(Run).where(Run.id == run_id).values(**values))


def asks(ground: Ground, run_id: str, decide_by: float | None) -> None:
    """Park the run with a question, as its owner does."""
    change(ground, run_id, status="requires_action", due_at=from_now(3600))
    when = None if decide_by is None else from_now(decide_by)
    with ground.database.write() as connection:
        asked = {**CALL, "status": "asked", "question": "approval", "decide_by": when}
        connection.execute(insert(ToolCall).values(run_id=run_id, **asked))


BROKEN: dict[str, Break] = {
    "owners": lambda g, run: change(g, run, owner="gone", due_at=None, status="in_progress"),
    "due times": lambda g, run: change(g, run, due_at=None),
    "ends": lambda g, run: change(g, run, status="failed", finished_at=from_now()),
    "waiting": lambda g, run: change(g, run, turn=False, due_at=None),
    "questions": lambda g, run: asks(g, run, None),
    "late questions": lambda g, run: asks(g, run, -3600),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found_and_mended(ground: Ground, name: str) -> None:
    """Expected: only this check finds it; without fix nothing is written; with it the run can be claimed again."""
    run, behind = ground.submit(), ground.submit()
    ground.boot()
    BROKEN[name](ground, run)
    before = ground.everything()
    assert examined(ground) == {name: (1, 0)}
    assert ground.everything() == before
    assert examined(ground, fix=True) == {name: (0, 1)}
    assert examined(ground) == {}
    assert ground.claimed() == [behind if name == "ends" else run]


def test_every_finding_has_a_way_on() -> None:
    """Expected: what is not mended says what a person does."""
    assert [
        one.name for one in doctor.checks(Settings.from_env({})) if not (one.mend and one.cure) and not one.hint
    ] == []


def test_a_sound_database_is_left_alone(ground: Ground) -> None:
    """Expected: nothing found, nothing written, with runs queued, waiting, held, retried and ended."""
    ground.boot()
    held, *_ = (ground.submit(name) for name in ("held", "held", "ended"))
    for claim in ground.claim():
        if claim.run_id != held:
            ground.settle(claim)
    ground.submit("queued")
    before = ground.everything()
    assert examined(ground, fix=True) == {}
    assert ground.everything() == before


def test_a_worker_that_nobody_reaped(ground: Ground) -> None:
    """Expected: its runs are due for others; one whose lease ran out just now is left to the reapers."""
    run = ground.submit()
    ground.boot("w1")
    ground.boot("w2")
    ground.claim("w1")
    ground.end_lease("w1")
    assert examined(ground, fix=True) == {}
    ground._change(update(Worker).where(Worker.id == "w1").values(lease_until=from_now(-3600)))
    assert examined(ground) == {"leases": (1, 0)}
    assert examined(ground, fix=True) == {"leases": (0, 1)}
    assert ground.claimed("w2") == [run]


def test_a_run_that_lost_its_turn_under_way_is_shown(ground: Ground) -> None:
    """Expected: found, and left to a person: nobody can tell what became of it."""
    ground.boot()
    run = ground.submit()
    change(ground, run, turn=False, due_at=None, status="in_progress")
    assert examined(ground, fix=True) == {"stranded": (1, 0)}


def test_what_people_should_look_at(ground: Ground) -> None:
    """Expected: warnings and counts, not wrong: unsubmitted and open calls, unserved queues, late tellings."""
    run, failed = ground.submit("a"), ground.submit("b")
    ground.boot()
    claims = {claim.run_id: claim for claim in ground.claim()}
    with ground.database.write() as connection:
        connection.execute(update(Thread).values(provider_id="conv_1"))
        done = {**CALL, "status": "completed", "output": "4", "finished_at": from_now()}
        connection.execute(insert(ToolCall).values(run_id=run, **done))
        connection.execute(insert(ToolCall).values(run_id=failed, **CALL, status="asked"))
        told = {"kind": "result", "subject": run, "payload": {}, "created_at": from_now(-3600)}
        connection.execute(insert(Outgoing).values(**told))
        batch = {"id": "b", "assistant": "helper", "prompt": "p", "on_end": {"task": "t"}, "sealed_at": from_now(-3600)}
        connection.execute(insert(Batch).values(**batch))
    ground.settle(claims[run])
    ground.settle(claims[failed], End(Event.FAIL, error_code="unknown_outcome"))
    ground.submit("c", queue="nobody")
    expected = {"outputs", "open calls", "unknown outcomes", "queues", "outbox", "batches"}
    assert set(examined(ground)) == expected
    verdicts = doctor.examine(ground.database, Settings.from_env({}))
    assert not [one.name for one in verdicts if one.wrong]


def test_a_turn_held_twice_is_found(ground: Ground) -> None:
    """Expected: without its index a database can hold two turns, and that is told."""
    ground.boot()
    ground.submit(), ground.submit()
    with ground.database.write() as connection:
        connection.execute(text("DROP INDEX uq_runwright_runs_turn"))
        connection.execute(update(Run).values(turn=True, due_at=from_now()))
    assert examined(ground) == {"turns": (1, 0)}


def test_another_schema_is_the_only_verdict(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: nothing else is asked of tables that this version does not know."""
    monkeypatch.setattr(schema, "head", lambda: "9999")
    (only,) = doctor.examine(ground.database, Settings.from_env({}), fix=True)
    assert (only.name, only.wrong) == ("schema", True)
    assert "newer" in only.findings[0].told or "run `runwright migrate`" in only.findings[0].told


def test_a_mend_looks_again_under_the_lock(ground: Ground) -> None:
    """Expected: what was found a moment ago and is no longer so is not touched."""
    run, _behind = ground.submit(), ground.submit()
    ground.boot()
    ground.take()
    before = ground.everything()
    for check in doctor.checks(Settings.from_env({})):
        for subject in (run, "w1") if check.name == "leases" else ("t",) if check.name == "waiting" else (run,):
            if check.mend:
                assert not ground.write(check.mend, subject), check.name
    assert ground.everything() == before


class Provider:
    """Answers errands: these responses are active, these cannot be asked."""

    def __init__(self, active: Sequence[str] = (), lost: Sequence[str] = ()) -> None:
        self.active, self.lost = set(active), set(lost)
        self.cancelled: list[str] = []

    def send(self, errand: Errand, targets: Sequence[Target]) -> Iterator[Outcome]:
        for one in targets:
            if one.id in self.lost:
                yield Outcome(one, error="connection_error: away")
                continue
            if errand is Errand.CANCEL:
                self.cancelled.append(one.id)
            yield Outcome(one, active=one.id in self.active)


@pytest.fixture
def ended(ground: Ground) -> str:
    """Return a run that ended with two responses, beside one that is under way with one."""
    ground.boot()
    run = ground.submit("a")
    ground.settle(created(ground, "conv_a", "r1", "r2"))
    ground.submit("b")
    created(ground, "conv_b", "r3")
    return run


def created(ground: Ground, conversation: str, *responses: str, place: str = PLACE) -> Claim:
    """Take the run that is due, and create these responses for it in a conversation at a place."""
    claim = ground.take()
    ground.commit(claim, progress.set_conversation, Opened(conversation), place, "")
    for response in responses:
        ground.commit(claim, progress.intend, 0, "")
        ground.commit(claim, progress.created, 0, response)
    return claim


def test_a_response_that_outlives_its_run_is_cancelled(ground: Ground, ended: str) -> None:
    """Expected: only the last response of a run that has ended is asked for, and cancelled only with fix."""
    provider = Provider(["r1", "r2", "r3"])
    runs = doctor.steps_of_ended_runs(ground.database, 24)
    assert runs == {Target("r2", PLACE): ended}
    verdict = doctor.at_the_provider(ground.database, runs, provider.send)
    assert ([one.subject for one in verdict.findings], verdict.wrong, provider.cancelled) == ([ended], True, [])
    verdict = doctor.at_the_provider(ground.database, runs, provider.send, fix=True)
    assert (verdict.findings, verdict.mended, provider.cancelled) == ([], 1, ["r2"])


def test_a_response_is_looked_for_where_it_was_created(ground: Ground) -> None:
    """Expected: at the place of the conversation it is in, whatever RUNWRIGHT_BACKEND says now.

    What lived on its connection is not looked for.
    """
    ground.boot()
    run = ground.submit()
    chat, assistants = str(Place.of({}, "chat")), str(Place.of({}, "assistants"))
    ground.commit(created(ground, "local_1", "c1", place=chat), settling.retry, 0.0, FAILED, 60.0)
    ground.commit(created(ground, "thread_2", "a2", place=assistants), settling.retry, 0.0, FAILED, 60.0)
    ground.settle(created(ground, "conv_3", "r3"))
    found = doctor.steps_of_ended_runs(ground.database, 24)
    assert found == {Target("a2", assistants): run, Target("r3", PLACE): run}


def test_a_provider_that_is_away_is_told(ground: Ground, ended: str) -> None:
    """Expected: skipped with the reason, neither right nor wrong."""
    verdict = doctor.at_the_provider(ground.database, {Target("r2", PLACE): ended}, Provider(lost=["r2"]).send)
    assert (verdict.skipped, verdict.wrong) == ("the provider could not be asked: connection_error: away", False)


def test_a_run_that_was_reopened_meanwhile_is_left_alone(ground: Ground, ended: str) -> None:
    """Expected: whether its response may go on is its owner's to say."""
    change(ground, ended, status=Status.QUEUED.value)
    provider = Provider(["r2"])
    verdict = doctor.at_the_provider(ground.database, {Target("r2", PLACE): ended}, provider.send, fix=True)
    assert (verdict.findings, provider.cancelled) == ([], [])
