"""What a run has reached: intent, provider id and ledger, from which any worker can go on after a crash."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from tests.conformance.ground import COMPLETE, PLACE, Ground
from worker.dbtime import from_now
from worker.lifecycle import Event, InvalidMove, Status
from worker.models import Attempt, Run, ToolCall, Worker
from worker.response import Asked, HostedCall, Opened, Usage
from worker.store import asking, claiming, held, items, leases, ledger, locks, progress, reading, settling
from worker.store.claiming import Claim
from worker.store.ledger import OpenCall
from worker.store.settling import End

FAILED = End(Event.FAIL, error_code="server_error", tail_unknown=True)
CALLS = [Asked("c1", "add", '{"a": 1}'), Asked("c2", "add", '{"a": 2}')]


def ask(ground: Ground, claim: Claim, calls: list[Asked] = CALLS, step: int = 0) -> None:
    """Settle a response that wants tools."""
    ground.commit(
        claim, progress.need_tools, effects={}, step=step, calls=calls, usage=Usage(1, 1, 0.1), last_item=f"item_{step}"
    )


def finish(ground: Ground, claim: Claim, call_id: str, output: str) -> None:
    """Store the output of a call."""
    ground.commit(claim, ledger.finish, call_id, status="completed", output=output, error=None)


def open_calls(ground: Ground, thread: str = "t") -> list[OpenCall]:
    """Return what the provider has no output for."""
    with ground.database.read() as connection:
        return ledger.still_open(connection, thread)


def reclaimed(ground: Ground) -> Claim:
    """Let the worker die and another one take its run."""
    ground.end_lease("w1")
    ground.write(leases.reap)
    return ground.take("w2")


@pytest.fixture
def claim(ground: Ground) -> Claim:
    """Give a held run, with a second worker standing by."""
    ground.submit()
    ground.boot("w1"), ground.boot("w2")
    return ground.take("w1")


def test_an_intent_survives_its_worker(ground: Ground, claim: Claim) -> None:
    """Expected: who takes over sees that the step may have been created, and after which item."""
    ground.commit(claim, progress.intend, 0, "item_7")
    assert reclaimed(ground).intent_step == 0
    with ground.database.read() as connection:
        attempt = connection.execute(select(Attempt)).one()
    assert (attempt.intent_after, attempt.intent_at is not None, attempt.provider_id) == ("item_7", True, None)


def test_a_withdrawn_intent_leaves_nothing_in_doubt(ground: Ground, claim: Claim) -> None:
    """Expected: who takes over may create the step."""
    ground.commit(claim, progress.intend, 0, None)
    ground.commit(claim, progress.withdraw)
    assert reclaimed(ground).intent_step is None


def test_a_provider_id_survives_its_worker(ground: Ground, claim: Claim) -> None:
    """Expected: who takes over waits for the same provider run; the intent is settled."""
    ground.commit(claim, progress.intend, 0, None)
    ground.commit(claim, progress.created, 0, "resp_1")
    again = reclaimed(ground)
    assert (again.provider_id, again.intent_step, again.attempt) == ("resp_1", None, 1)


def test_a_step_asked_for_again_is_counted_once(ground: Ground, claim: Claim) -> None:
    """Expected: where its commit was unclear and is repeated, as well; the next worker's asking counts once more."""
    ground.commit(claim, progress.intend, 0, None)
    for worker, counted in (("w1", 1), ("w2", 2)):
        ground.hand_over(claim)
        claim = ground.take(worker)
        for _ in range(2):
            ground.commit(claim, progress.intend, 0, None, again=True)
        with ground.database.read() as connection:
            events = [event["name"] for event in reading.events(connection, claim.run_id)]
            kept = connection.execute(select(Attempt.reissued)).scalar_one()
        assert (kept, events.count("reissued")) == (counted, counted)


def test_a_conversation_survives_its_run(ground: Ground, claim: Claim) -> None:
    """Expected: the next run of the thread goes on in the same conversation, after its last item."""
    ground.commit(claim, progress.set_conversation, Opened("conv_1"), PLACE, "")
    ground.settle(claim, End(Event.COMPLETE, "done", answered=True, last_item="item_3"))
    ground.submit()
    following = ground.take("w1")
    assert (following.conversation, following.last_item) == ("conv_1", "item_3")


def test_the_chain_of_provider_ids_grows(ground: Ground, claim: Claim) -> None:
    """Expected: each step's id in order over attempts; status goes to requires_action and back; steps count."""
    ground.commit(claim, progress.created, 0, "resp_1")
    ask(ground, claim)
    assert ground.status(claim.run_id) is Status.REQUIRES_ACTION
    ground.commit(claim, progress.created, 1, "resp_2")
    assert ground.status(claim.run_id) is Status.IN_PROGRESS
    ground.commit(claim, settling.retry, 0.0, End(Event.FAIL, error_code="e"), 60.0)
    again = ground.take("w1")
    assert (again.step, again.provider_id) == (1, None)
    ground.commit(again, progress.created, 1, "resp_3")
    with ground.database.read() as connection:
        assert reading.run(connection, claim.run_id).provider_ids == ["resp_1", "resp_2", "resp_3"]


def test_calls_enter_the_ledger_in_the_models_order(ground: Ground, claim: Claim) -> None:
    """Expected: asked, without output, arguments as they were written."""
    ask(ground, claim)
    assert open_calls(ground) == [
        OpenCall(claim.run_id, "c1", "add", '{"a": 1}', "asked", None, 0),
        OpenCall(claim.run_id, "c2", "add", '{"a": 2}', "asked", None, 0),
    ]


def test_an_output_survives_its_worker(ground: Ground, claim: Claim) -> None:
    """Expected: who takes over submits the stored output and sees which call was interrupted."""
    ask(ground, claim)
    ground.commit(claim, ledger.start, ["c1", "c2"])
    finish(ground, claim, "c2", "3")
    again = reclaimed(ground)
    assert (again.status, again.step) == (Status.REQUIRES_ACTION, 1)
    assert [(call.call_id, call.status, call.output) for call in open_calls(ground)] == [
        ("c1", "running", None),
        ("c2", "completed", "3"),
    ]


def test_a_finished_call_stays_finished(ground: Ground, claim: Claim) -> None:
    """Expected: neither a second start nor a second output changes it."""
    ask(ground, claim)
    finish(ground, claim, "c1", "first")
    ground.commit(claim, ledger.start, ["c1", "c2"])
    finish(ground, claim, "c1", "second")
    assert [(call.status, call.output) for call in open_calls(ground)] == [("completed", "first"), ("running", None)]


def test_the_ledger_is_unique(ground: Ground, claim: Claim) -> None:
    """Expected: a run cannot be asked the same call twice; the whole step is refused, nothing half written."""
    ask(ground, claim)
    ground.commit(claim, progress.created, 1, "resp_2")
    before = ground.everything()
    with pytest.raises(IntegrityError):
        ask(ground, claim, [Asked("c3", "add", "{}"), Asked("c1", "add", "{}")], step=1)
    assert ground.everything() == before


HOSTED = HostedCall("ci_1", "code_interpreter", '{"code": "1"}', "[]")


def test_what_the_provider_did_is_kept_once(ground: Ground, claim: Claim) -> None:
    """Expected: closed from the first, so that nobody answers it; told again it changes no row, nor a call of ours."""
    again = [
        replace(HOSTED, output="other"),
        HostedCall("c1", "file_search", "{}", "[]"),
        replace(HOSTED, call_id="ci_2"),
    ]
    told: dict[str, Any] = {"effects": {}, "usage": Usage(), "last_item": "item"}
    ground.commit(claim, progress.need_tools, step=0, calls=CALLS, hosted=[HOSTED], **told)
    assert [call.call_id for call in open_calls(ground)] == ["c1", "c2"]
    ground.commit(claim, settling.settle, End(Event.COMPLETE, "done", answered=True, hosted=tuple(again)))
    with ground.database.read() as connection:
        kept = reading.run(connection, claim.run_id).tool_calls
    assert [(call["call_id"], call["hosted"], call["output"]) for call in kept] == [
        ("ci_1", True, "[]"),
        ("c1", False, None),
        ("c2", False, None),
        ("ci_2", True, "[]"),
    ]


def test_what_the_provider_did_wrong_is_kept_with_its_word(ground: Ground, claim: Claim) -> None:
    """Expected: failed, with the provider's word, also where the attempt is tried again."""
    failed = End(
        Event.FAIL, error_code="server_error", hosted=(replace(HOSTED, output=None, error="incomplete", step=3),)
    )
    ground.commit(claim, settling.retry, 0.0, failed, 600.0)
    with ground.database.read() as connection:
        (call,) = connection.execute(select(ToolCall)).all()
    assert (call.status, call.error, call.output, call.step, call.attempt) == ("failed", "incomplete", None, 3, 1)


def test_what_the_provider_did_hinders_no_further_attempt(ground: Ground, claim: Claim) -> None:
    """Expected: a run that failed after it may be asked anew, and gives no further run anything to answer."""
    ground.settle(claim, End(Event.FAIL, error_code="e", hosted=(HOSTED,)))
    ground.write(asking.reopen, claim.run_id)
    assert open_calls(ground) == []
    with ground.database.read() as connection:
        assert not ledger.began_once(connection, claim.run_id)
        assert ledger.answered(connection, claim.run_id) == []


def test_many_runs_keep_theirs_in_one_commit(ground: Ground) -> None:
    """Expected: each run has its own, under the same ids."""
    runs = [ground.submit(f"thread {at}") for at in range(3)]
    ground.boot("w3")
    ends = [End(Event.COMPLETE, "done", answered=True, hosted=(HOSTED,) * at) for at in range(3)]
    with ground.database.write() as connection:
        claims = {claim.run_id: claim for claim in claiming.claim(connection, "w3", ("default",), 10)}
    with ground.database.write() as connection:
        jobs = [held.Job(claims[run], settling.settle, (end,)) for run, end in zip(runs, ends, strict=True)]
        assert [one.error for one in held.carry_out(connection, jobs)] == [None] * 3
        assert [len(reading.run(connection, run).tool_calls) for run in runs] == [0, 1, 1]


def test_two_runs_may_use_the_same_call_id(ground: Ground, claim: Claim) -> None:
    """Expected: call ids are the run's own: a run is not disturbed by what another one was asked."""
    ask(ground, claim)
    ground.submit("other")
    other = ground.take("w2")
    ask(ground, other)
    finish(ground, other, "c1", "other's")
    assert [call.output for call in open_calls(ground, "t")] == [None, None]
    assert [call.output for call in open_calls(ground, "other")] == ["other's", None]


@pytest.mark.parametrize(
    ("end", "left"),
    [
        (End(Event.COMPLETE, "done", answered=True), []),
        (End(Event.STOP_SHORT, "cut", answered=True), []),
        (End(Event.FAIL), ["c1", "c2"]),
        (End(Event.EXPIRE), ["c1", "c2"]),
        (End(Event.CANCEL), ["c1", "c2"]),
        (End(Event.CANCEL, answered=True, left_open=(Asked("c3", "add", "{}"),)), ["c3"]),
        (End(Event.FAIL, abandon=True), []),
    ],
)
def test_calls_stay_open_until_a_response_that_had_their_outputs_ended_well(
    ground: Ground, claim: Claim, end: End, left: list[str]
) -> None:
    """Expected: what an ended run leaves unanswered in the conversation is seen by the next run of the thread.

    Also calls that its last response asked for too late; an abandoned conversation has nothing open any more.
    """
    ask(ground, claim)
    ground.settle(claim, end)
    assert [call.call_id for call in open_calls(ground)] == left


def test_the_next_steps_calls_close_those_before(ground: Ground, claim: Claim) -> None:
    """Expected: a response that asks for more has taken the outputs it was given; only its own calls are open."""
    ask(ground, claim)
    ground.commit(claim, progress.created, 1, "resp_2")
    ask(ground, claim, [Asked("c3", "add", "{}")], step=1)
    assert [call.call_id for call in open_calls(ground)] == ["c3"]
    with ground.database.read() as connection:
        assert connection.execute(select(ToolCall.step).order_by(ToolCall.call_id)).scalars().all() == [0, 0, 1]


def test_tools_are_not_asked_for_twice_in_a_row(ground: Ground, claim: Claim) -> None:
    """Expected: InvalidMove: a second list of calls without a response between them is a bug, not a step."""
    ask(ground, claim)
    with pytest.raises(InvalidMove, match="requires_action cannot need tools"):
        ask(ground, claim, [Asked("c9", "add", "{}")], step=1)


@pytest.mark.parametrize("write", ["need_tools", "set_conversation", "settle", "retry"])
def test_writes_lock_the_thread_before_the_run(postgres_url: str, write: str) -> None:
    """Expected: who waits for the thread holds no run yet: a cancel that has the thread can take the run's row."""
    ground = Ground(postgres_url)
    run = ground.submit()
    ground.boot()
    claim = ground.take()
    asked = {"step": 0, "calls": CALLS, "effects": {}, "usage": Usage(), "last_item": None}
    writes = {
        "need_tools": lambda connection: held.commit(connection, claim, progress.need_tools, **asked),  # type: ignore[arg-type]  # one dict for all of them
        "set_conversation": lambda connection: held.commit(
            connection, claim, progress.set_conversation, Opened("conv_1"), PLACE, ""
        ),
        "settle": lambda connection: held.commit(connection, claim, settling.settle, COMPLETE),
        "retry": lambda connection: held.commit(connection, claim, settling.retry, 0.0, FAILED, 60.0),
    }
    with ground.database.write() as connection:
        waiting = ground.behind(connection, locks.lock, "t", meanwhile=writes[write])
        assert connection.execute(select(Run.id).with_for_update(nowait=True)).scalar_one() == run
        assert asking.ask_cancel(connection, run)[0] is Status.IN_PROGRESS
    waiting.result(20)
    assert ground.row(run).cancel_requested_at is not None
    ground.close()


def test_every_start_of_a_call_is_counted(ground: Ground, claim: Claim) -> None:
    """Expected: who takes over sees how often it began; one that has its output is not told to begin again."""
    ask(ground, claim)
    ground.commit(claim, ledger.start, ["c1", "c2"])
    finish(ground, claim, "c2", "3")
    again = reclaimed(ground)
    assert ground.commit(again, ledger.start, ["c1", "c2"]) == {"c1"}
    assert [(call.status, call.starts) for call in open_calls(ground)] == [("running", 2), ("completed", 1)]


def test_a_call_is_written_off_once(ground: Ground, claim: Claim) -> None:
    """Expected: the first answer stays, and one that has its output keeps it."""
    ask(ground, claim)
    finish(ground, claim, "c1", "3")
    for words in ("gone", "gone again"):
        for call in open_calls(ground):
            ground.commit(claim, ledger.write_off, call, words, "in_doubt")
    assert [(call.status, call.output) for call in open_calls(ground)] == [("completed", "3"), ("failed", "gone")]


def test_the_dead_are_left_alone_where_all_may_only_be_late(ground: Ground, claim: Claim) -> None:
    """Expected: a reaper that has waited for the database takes nothing, however long the lease is over."""
    ground.end_lease("w1")
    assert ground.write(leases.reap, lambda: False) == 0
    assert ground.row(claim.run_id).owner == "w1"
    assert ground.write(leases.reap, lambda: True) == 1
    assert ground.row(claim.run_id).owner is None


@pytest.mark.parametrize(
    ("ago", "reaped"), [(8.0, 0), (4.0, 1), (2.0, 0)], ids=["before it tried", "while it tried", "too short ago"]
)
def test_who_did_not_renew_while_another_could_start_is_dead(
    ground: Ground, claim: Claim, ago: float, reaped: int
) -> None:
    """Expected: of a lease of ten seconds that ended a second ago, a start within the time of its tries tells."""
    ground.end_lease("w1")
    ground.boot("w2")
    ground.write(lambda connection: connection.execute(update(Worker).values(started_at=from_now(-ago))))
    assert ground.write(leases.reap, lambda: False, 10.0) == reaped
    assert (ground.row(claim.run_id).owner is None) == bool(reaped)


def test_a_worker_registers_twice_as_well_as_once(ground: Ground, claim: Claim) -> None:
    """Expected: where the answer to the commit was lost the unit is repeated; the worker stands there once, alive."""
    ground.boot("w1", lease=900)
    ground.write(leases.hold, "w1")
    with ground.database.read() as connection:
        assert sorted(reading.living_workers(connection)) == ["w1", "w2"]
    assert ground.row(claim.run_id).owner == "w1"


def test_what_conversations_begin_with_is_kept_in_one_commit_with_others(ground: Ground) -> None:
    """Expected: the conversation stands before its items, also where an item of another one came first."""
    ground.boot()
    for thread in ("a", "b"):
        ground.submit(thread)
    first, second = ground.claim()
    place = "chat - OPENAI_API_KEY"
    ground.commit(first, progress.set_conversation, Opened("local_a"), place, "")
    asked = {"step": 0, "calls": (), "effects": {}, "usage": Usage(), "last_item": "", "added": ({"said": 1},)}
    jobs = [
        held.Job(first, progress.need_tools, kwargs=asked),
        held.Job(second, progress.set_conversation, (Opened("local_b", ({"said": 2},)), place, "")),
    ]
    outcomes = ground.write(held.carry_out, jobs)
    assert [outcome.error for outcome in outcomes] == [None, None]
    with ground.database.read() as connection:
        assert [items.of(connection, one) for one in ("local_a", "local_b")] == [[{"said": 1}], [{"said": 2}]]
