"""What the provider's documents leave open, as switches, on a clock that the test turns."""

from typing import Any

import pytest

from simulator.errors import ApiError
from simulator.faults import FaultSettings, Trouble, changed
from simulator.responses import Response
from tests.unit.test_simulator_rules import World, refusal


def switched(**settings: Any) -> World:
    """Return a world with these settings, where responses take ten seconds."""
    world = World()
    world.provider.faults.apply(FaultSettings(**{"latency": "10", **settings}))
    return world


def output(call_id: str) -> list[dict[str, str]]:
    """Return an input that answers a call."""
    return [{"type": "function_call_output", "call_id": call_id, "output": "1"}]


def status(world: World, response: Response) -> str:
    """Return a response's status now."""
    return str(world.body(response)["status"])


def test_a_queued_response_may_leave_its_conversation_free() -> None:
    """Without the lock a second response begins while the first is queued; the counters see the overlap."""
    world = switched(lock_while_queued=False)
    world.create("[[stuck]]")
    assert world.create("two").id
    world.later(1.0)
    assert refusal(world, "three")[1] == "conversation_locked"
    assert world.provider.counters.overlaps == 1
    assert world.provider.counters.anomalies(world.clock.now)["overlapping"] == {world.conversation: 1}


@pytest.mark.parametrize(
    ("setting", "left"),
    [("none", []), ("input", ["message"]), ("all", ["message", "function_call"])],
)
@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_what_a_response_without_success_leaves(setting: str, left: list[str], end: str) -> None:
    """The conversation holds nothing, the input, or the output too; the response itself shows no output."""
    world = switched(items_on_failure=setting)
    response = world.create("[[call f {}]] [[fail server_error no]]" if end == "failed" else "[[call f {}]]")
    if end == "cancelled":
        world.provider.cancel_response(response.id)
    world.later()
    assert (status(world, response), world.body(response)["output"]) == (end, [])
    assert world.kinds() == left


def test_a_cancel_may_be_answered_and_change_nothing() -> None:
    """The response goes on and completes, also one that would have hung for ever."""
    world = switched(cancel_completes=True)
    for text in ("[[say done]]", "[[hang]] [[say done]]", "[[stuck]] [[say done]]"):
        response = world.create(text)
        world.later(5.0)
        assert status(world, world.provider.cancel_response(response.id)) in ("queued", "in_progress")
        world.later()
        assert (status(world, response), world.body(response)["output"][0]["role"]) == ("completed", "assistant")
    assert world.provider.counters.overlaps == 0


def test_a_locked_conversation_may_refuse_items() -> None:
    """Items are taken while a response runs, unless the switch says that the lock is for them too."""
    world, items = switched(items_lock=True), [{"role": "user", "content": "x"}]
    world.create("one")
    with pytest.raises(ApiError, match="currently operating"):
        world.provider.add_items(world.conversation, items)
    world.later()
    assert world.provider.add_items(world.conversation, items)


@pytest.mark.parametrize(("text", "setting"), [("[[queued 30]]", 0.0), ("x", 30.0)])
def test_a_response_may_be_queued_for_long(text: str, setting: float) -> None:
    """It waits first, and takes its latency then."""
    world = switched(queued_seconds=setting)
    response = world.create(text)
    seen = []
    for seconds in (29.0, 2.0, 9.0):
        world.later(seconds)
        seen.append(status(world, response))
    assert seen == ["queued", "in_progress", "completed"]


def test_a_directive_happens_so_often_to_each_round_of_a_run() -> None:
    """Once, or N times, counted apart for each run and round; without a run_id always."""
    world = switched(latency="0")
    text = "[[drop after]] [[late 3 x2]] [[call f {}]] [[then]] [[drop after]]"

    def troubles(given: Any, **body: Any) -> list[Trouble | None]:
        asking = world.provider.asked({"model": "gpt-4o", "input": given, "conversation": world.conversation, **body})
        return [world.provider.trouble(asking, "drop after", "late") for _ in range(4)]

    first, late = Trouble("drop after", 0.0, 1, 1), Trouble("late", 3.0, 1, 2)
    for run_id in ("a", "b"):
        assert troubles(text, metadata={"run_id": run_id}) == [first, late, late, None]
    assert troubles(text) == [first] * 4
    call_id = world.create(text).outcome.written[0]["call_id"]
    assert troubles(output(call_id), metadata={"run_id": "a"}) == [Trouble("drop after", 0.0, 2, 1), None, None, None]


def test_outputs_given_twice_are_counted() -> None:
    """A second answer to a call is a mistake, unless the response that took the first one failed."""
    world = switched(latency="0")
    call_id = world.create("[[call f {}]] [[then]] [[fail server_error no x2]]", metadata={"run_id": "a"})
    given = output(call_id.outcome.written[0]["call_id"])
    for _ in range(3):
        world.create(given, metadata={"run_id": "a", "attempt": "1", "step": "2"})
    totals = world.provider.counters.anomalies(world.clock.now)
    assert (totals["duplicate_outputs"], totals["outputs_after_failure"], totals["duplicate_steps"]) == (1, 1, 1)
    assert totals["by_run"]["a"]["steps"] == {"1/2": 3}


def test_only_runs_that_did_a_step_twice_are_anomalies() -> None:
    """The totals are of all runs, the runs themselves few."""
    world = switched(latency="0")
    for run_id, step in (("a", "1"), ("a", "2"), ("b", "1"), ("b", "1")):
        world.create("x", metadata={"run_id": run_id, "attempt": "1", "step": step})
    found = world.provider.counters.anomalies(world.clock.now)
    assert (found["runs"], found["provider_runs"], list(found["by_run"])) == (2, 4, ["b"])


def test_shares_of_responses_repeat_with_their_seed() -> None:
    """A share of the responses is stuck, another fails with its code, the same ones each time."""
    seen = []
    for _ in range(2):
        world = switched(stuck_share=0.3, fail_share=0.3, latency="0")
        ends = [status(world, world.create("x", conversation=None)) for _ in range(300)]
        assert all(60 < ends.count(end) < 120 for end in ("queued", "failed"))
        seen.append(ends)
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"outage": "yes"}, "outage is one of off, drop, 503, hang"),
        ({"items_on_failure": "some"}, "items_on_failure is one of"),
        ({"items_lock": "perhaps"}, "items_lock must be bool"),
        ({"late_share": 1.5}, "late_share: a share"),
        ({"slow_seconds": "inf"}, "slow_seconds is a number of seconds"),
    ],
)
def test_a_wrong_switch_is_named(wrong: dict[str, Any], named: str) -> None:
    """The error says which setting is wrong, and what it may be."""
    with pytest.raises(ValueError, match=named):
        changed(FaultSettings(), wrong)


def test_a_switch_is_read_from_text_as_from_json() -> None:
    """A flag's false is no true."""
    assert not changed(FaultSettings(), {"lock_while_queued": "false"}).lock_while_queued
    assert not changed(FaultSettings(), {"lock_while_queued": False}).lock_while_queued
    assert changed(FaultSettings(), {"cancel_completes": "1"}).cancel_completes


def test_equal_tools_are_kept_once() -> None:
    """Thousands of responses share one copy of what they have in common."""
    world = switched(latency="0")
    first, second = (world.create("x", conversation=None, instructions="be brief") for _ in range(2))
    assert first.request["tools"] is second.request["tools"]
