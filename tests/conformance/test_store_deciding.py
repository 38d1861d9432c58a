"""Questions to people: asked under a claim, answered once by anybody, and the parked run goes on."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update

from tests.conformance.ground import Ground
from tests.conformance.test_store_plans import plan, statements
from worker.dbtime import from_now
from worker.errors import LostClaim, UnknownRun, UsageError
from worker.lifecycle import Event, Status
from worker.models import ToolCall
from worker.response import Asked, Usage
from worker.store import asking, deciding, ledger, progress, reading, settling
from worker.store.claiming import Claim
from worker.store.deciding import Kind
from worker.store.settling import End

FAILED = End(Event.FAIL, error_code="e", error_message="m")


def asks(ground: Ground, *call_ids: str, question: Kind = "approval", seconds: float = 600.0) -> Claim:
    """Return a held run that has asked people about these calls of `pay`."""
    ground.submit(queue="q")
    ground.boot(queues=("q",))
    (claim,) = ground.claim(queues=("q",))
    calls = [Asked(call_id, "pay", '{"to": "ann"}') for call_id in call_ids]
    ground.commit(claim, progress.need_tools, effects={}, step=0, calls=calls, usage=Usage(), last_item=None)
    ground.commit(claim, deciding.ask, call_ids, question, seconds)
    return claim


def parked(ground: Ground, *call_ids: str, question: Kind = "approval") -> str:
    """Return such a run that nobody holds."""
    claim = asks(ground, *call_ids, question=question)
    ground.commit(claim, settling.park_until_answer, 60.0)
    return claim.run_id


def call(ground: Ground, call_id: str = "c1") -> Any:
    """Return the row of a call."""
    with ground.database.read() as connection:
        return connection.execute(select(ToolCall).where(ToolCall.call_id == call_id)).one()


def pending(ground: Ground, **options: Any) -> list[str]:
    with ground.database.read() as connection:
        return [one.call_id for one in deciding.pending(connection, **options)]


def events(ground: Ground, run_id: str) -> list[tuple[str, Any]]:
    with ground.database.read() as connection:
        return [(event["name"], event["data"]) for event in reading.events(connection, run_id)]


def due(ground: Ground, run_id: str) -> bool:
    at = ground.row(run_id).due_at
    return at is not None and at <= ground.now()


def expire(ground: Ground, call_id: str = "c1") -> None:
    """Let the time pass until nobody may decide any more."""
    ground._change(update(ToolCall).where(ToolCall.call_id == call_id).values(decide_by=from_now(-1)))


def test_a_question_is_asked_once(ground: Ground) -> None:
    """Expected: kind and limit on each call, one event with the tools; asking again changes nothing."""
    claim = asks(ground, "c1", "c2")
    row, now = call(ground), ground.now()
    assert (row.question, row.decision) == ("approval", None)
    assert 590 < (row.decide_by - now).total_seconds() <= 600
    assert events(ground, claim.run_id)[-1] == ("asked", {"question": "approval", "tools": ["pay", "pay"]})
    before = ground.everything()
    ground.commit(claim, deciding.ask, ["c1", "c2"], "approval", 5.0)
    assert ground.everything() == before


def test_only_the_owner_asks(ground: Ground) -> None:
    """Expected: LostClaim under an old claim, and nothing is asked."""
    claim = asks(ground, "c1")
    ground.hand_over(claim)
    with pytest.raises(LostClaim):
        ground.commit(claim, deciding.ask, ["c1"], "in_doubt", 5.0)
    assert call(ground).question == "approval"


def test_an_approved_call_that_was_interrupted_is_asked_about_anew(ground: Ground) -> None:
    """Expected: the approval does not answer what the call has come to; a finished call is asked nothing."""
    claim = asks(ground, "c1", "c2")
    for call_id in ("c1", "c2"):
        ground.write(deciding.approve, claim.run_id, call_id, by="ann", reason="fine")
    ground.commit(claim, ledger.finish, "c2", status="completed", output="paid", error=None)
    ground.commit(claim, deciding.ask, ["c1", "c2"], "in_doubt", 600.0)
    row = call(ground)
    assert (row.question, row.decision, row.decided_by, row.reason) == ("in_doubt", None, None, None)
    assert (call(ground, "c2").question, pending(ground)) == ("approval", ["c1"])


def test_what_is_pending_is_what_can_be_answered(ground: Ground) -> None:
    """Expected: whole questions, the first to expire first; not what is decided, too late, cancelled or ended."""
    claim = asks(ground, "c1", "c2", "c3")
    expire(ground, "c3")
    with ground.database.read() as connection:
        one, two = deciding.pending(connection)
    assert (one.run_id, one.call_id, one.tool, one.arguments) == (claim.run_id, "c1", "pay", '{"to": "ann"}')
    assert (one.question, one.assistant, one.thread_id, one.queue) == ("approval", "helper", "t", "q")
    assert (one.asked_at is not None, one.decide_by > ground.now(), one.began_at) == (True, True, None)
    assert two.call_id == "c2"
    assert pending(ground, limit=1) == ["c1"]
    assert pending(ground, question="in_doubt") == []
    ground.write(deciding.approve, claim.run_id, "c1", by="ann")
    assert pending(ground) == ["c2"]
    ground.write(asking.ask_cancel, claim.run_id)
    assert pending(ground) == []


def test_an_ended_run_asks_nothing(ground: Ground) -> None:
    """Expected: its question is not listed and not answered."""
    claim = asks(ground, "c1")
    ground.settle(claim, FAILED)
    assert pending(ground) == []
    with pytest.raises(UsageError, match=f"run {claim.run_id} has ended: it is failed"):
        ground.write(deciding.approve, claim.run_id, None, by="ann")


def test_an_approval_makes_a_parked_run_due(ground: Ground) -> None:
    """Expected: the decision stands with the call, which has not run; the run's queue is to be rung."""
    run = parked(ground, "c1")
    assert not due(ground, run)
    decided = ground.write(deciding.approve, run, None, by="ann", reason="fine")
    assert (decided.call_id, decided.tool, decided.decision, decided.queue) == ("c1", "pay", "approved", "q")
    row = call(ground)
    assert (row.decision, row.decided_by, row.reason, row.status, row.output) == (
        "approved",
        "ann",
        "fine",
        "asked",
        None,
    )
    assert (row.decided_at is not None, due(ground, run)) == (True, True)
    assert events(ground, run)[-1] == (
        "approved",
        {"call_id": "c1", "tool": "pay", "by": "ann", "reason": "fine"},
    )
    (claim,) = ground.claim(queues=("q",))
    assert (claim.run_id, claim.status, claim.attempt) == (run, Status.REQUIRES_ACTION, 1)


def test_a_decision_is_shown_with_its_call(ground: Ground) -> None:
    """Expected: question, decision, who and why stand beside what the call came to; a long why not in the event."""
    run, why = parked(ground, "c1", "c2"), "because " * 30
    ground.write(deciding.deny, run, "c1", by="ann", reason=why)
    with ground.database.read() as connection:
        first, second = reading.run(connection, run).tool_calls
    asked = ("question", "decision", "decided_by", "reason")
    assert [first[name] for name in asked] == ["approval", "denied", "ann", why]
    assert [second[name] for name in asked] == ["approval", None, None, None]
    assert events(ground, run)[-1] == ("denied", {"call_id": "c1", "tool": "pay", "by": "ann"})


def test_the_last_answer_makes_the_run_due(ground: Ground) -> None:
    """Expected: with another question open the run stays parked."""
    run = parked(ground, "c1", "c2")
    assert ground.write(deciding.deny, run, "c2", by="ann").queue is None
    assert not due(ground, run)
    assert ground.write(deciding.approve, run, None, by="ann").queue == "q"
    assert due(ground, run)


def test_a_decision_about_a_held_run_leaves_its_course_alone(ground: Ground) -> None:
    """Expected: the decision is written; owner, due time and status stay the owner's, and nothing is rung."""
    claim = asks(ground, "c1")
    before = ground.row(claim.run_id)
    assert ground.write(deciding.approve, claim.run_id, "c1", by="ann").queue is None
    assert ground.row(claim.run_id) == before
    assert call(ground).decision == "approved"


def test_a_decision_does_not_shorten_the_delay_of_a_retry(ground: Ground) -> None:
    """Expected: a run that waits for its next attempt still does."""
    claim = asks(ground, "c1")
    ground.commit(claim, settling.retry, 3600.0, FAILED, 60.0)
    assert ground.write(deciding.approve, claim.run_id, "c1", by="ann").queue is None
    assert not due(ground, claim.run_id)


@pytest.mark.parametrize(
    ("reason", "message"), [("too\0 dear: 5 €", "too\N{REPLACEMENT CHARACTER} dear: 5 €"), (None, deciding._DENIED)]
)
def test_a_denial_is_the_calls_output(ground: Ground, reason: str | None, message: str) -> None:
    """Expected: finished at once, with the reason as the model reads it; a worker that is late cannot change it."""
    run = parked(ground, "c1")
    assert ground.write(deciding.deny, run, "c1", by="ann", reason=reason).queue == "q"
    row = call(ground)
    assert (row.status, row.error, row.decision, row.finished_at is not None) == ("failed", "denied", "denied", True)
    assert json.loads(row.output) == {"error": {"type": "denied", "message": message}}
    (claim,) = ground.claim(queues=("q",))
    ground.commit(claim, ledger.start, ["c1"])
    ground.commit(claim, ledger.finish, "c1", status="completed", output="paid", error=None)
    assert call(ground) == row


@pytest.mark.parametrize(
    ("words", "status", "error", "output"),
    [
        ({"output": "paid 5"}, "completed", None, "paid 5"),
        ({"output": ""}, "completed", None, ""),
        ({"error": "it broke"}, "failed", "failed", '{"error": {"type": "failed", "message": "it broke"}}'),
    ],
)
def test_a_call_in_doubt_is_answered(
    ground: Ground, words: dict[str, str], status: str, error: str | None, output: str
) -> None:
    """Expected: what the person says is the call's end, and the run goes on."""
    run = parked(ground, "c1", question="in_doubt")
    assert ground.write(deciding.answer, run, None, by="ann", **words).queue == "q"
    row = call(ground)
    assert (row.status, row.error, row.output, row.decision) == (status, error, output, "answered")
    assert (row.finished_at is not None, due(ground, run)) == (True, True)


@pytest.mark.parametrize("words", [{}, {"output": "a", "error": "b"}])
def test_an_answer_is_an_output_or_an_error(ground: Ground, words: dict[str, str]) -> None:
    """Expected: neither and both are refused."""
    run = parked(ground, "c1", question="in_doubt")
    with pytest.raises(UsageError, match="one of them"):
        ground.write(deciding.answer, run, None, by="ann", **words)


def refused(ground: Ground, run_id: str, call_id: str | None, words: str, by: str = "bob") -> None:
    """Expect that approve and deny are refused alike and write nothing."""
    units: tuple[Callable[..., Any], ...] = (deciding.approve, deciding.deny)
    for unit in units:
        before = ground.everything()
        with pytest.raises(UsageError, match=words):
            ground.write(unit, run_id, call_id, by=by)
        assert ground.everything() == before


def test_what_cannot_be_decided_is_refused_in_clear_words(ground: Ground) -> None:
    """Expected: each refusal says why; nothing is written."""
    run = parked(ground, "c1", "c2")
    with pytest.raises(UnknownRun):
        ground.write(deciding.approve, "nope", None, by="ann")
    refused(ground, run, "c9", "has no call 'c9'")
    refused(ground, run, None, r"asks about several calls; name one of them: c1 \(pay\), c2 \(pay\)")
    refused(ground, run, "c1", "by: who decides, between 1 and 200 characters", by=" ")
    refused(ground, run, "c1", "by: who decides, between 1 and 200 characters", by="x" * 201)
    with pytest.raises(UsageError, match="asks something else: it waits for approval"):
        ground.write(deciding.answer, run, "c1", by="ann", output="x")
    with pytest.raises(UsageError, match="has no call that is in doubt"):
        ground.write(deciding.answer, run, None, by="ann", output="x")
    ground.write(deciding.approve, run, "c1", by="ann")
    refused(ground, run, "c1", r"call c1 \(pay\) of run .* was approved by ann at 20..-..-.. ..:..:.. UTC")
    expire(ground, "c2")
    refused(ground, run, "c2", "was to be decided by 20.* UTC; it is too late")
    refused(ground, run, None, r"call c2 \(pay\) .* it is too late")
    ground.write(asking.ask_cancel, run)
    refused(ground, run, "c2", "is being cancelled")


def test_a_call_without_a_question_is_not_decided(ground: Ground) -> None:
    """Expected: the error says that nobody is asked; without a name, that no call waits."""
    ground.submit()
    ground.boot()
    claim = ground.take()
    calls = [Asked("c1", "add", "{}")]
    ground.commit(claim, progress.need_tools, effects={}, step=0, calls=calls, usage=Usage(), last_item=None)
    refused(ground, claim.run_id, "c1", "asks nothing of people")
    refused(ground, claim.run_id, None, "has no call that waits for approval")


def test_one_of_two_decisions_at_once_is_refused(ground: Ground) -> None:
    """Expected: the second waits for the run's row and then reads that it was decided."""
    run = parked(ground, "c1")
    if ground.postgresql:
        with ground.database.write() as connection:
            second = ground.behind(
                connection,
                lambda c: deciding.deny(c, run, "c1", by="ann"),
                meanwhile=lambda c: deciding.approve(c, run, "c1", by="bob"),
            )
        with pytest.raises(UsageError, match="was denied by ann"):
            second.result(10)
    else:
        ground.write(deciding.deny, run, "c1", by="ann")
        refused(ground, run, "c1", "was denied by ann")
    assert call(ground).decision == "denied"


def test_the_questions_are_found_by_their_index(ground: Ground) -> None:
    """Expected: with thousands of calls in the ledger only the undecided are read."""
    claim = asks(ground, "c1")
    rows = [
        {"run_id": claim.run_id, "call_id": f"old{n}", "step": 0, "position": n, "attempt": 1, "name": "a"}
        | {"arguments": "{}", "status": "completed", "closed": True}
        for n in range(3000)
    ]
    with ground.database.write() as connection:
        connection.execute(insert(ToolCall), rows)
    with ground.database.write() as connection:
        connection.execute(text("ANALYZE"))
    with ground.database.read() as connection:
        with statements(connection) as sent:
            assert [one.call_id for one in deciding.pending(connection)] == ["c1"]
        (told,) = [plan(connection, statement) for statement in sent]
    assert "ix_runwright_tool_calls_undecided" in told
