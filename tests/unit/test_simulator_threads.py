"""The rules between threads and runs, on a clock that the test turns."""

from typing import Any

import pytest

from simulator.errors import ApiError
from simulator.faults import Faults, FaultSettings
from simulator.provider import Provider
from simulator.thread_runs import Run
from simulator.thread_steps import steps
from simulator.threads import Threads
from simulator.threads_wire import text_of
from simulator.wire import JsonObject
from tests.unit.test_simulator_rules import Clock

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


class World:
    """Threads whose legs take ten seconds, with an assistant and one thread."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.provider = Provider(Faults(FaultSettings(**{"latency": "10", **settings})), self.clock)
        self.threads = Threads(self.provider)
        self.assistant = self.threads.create_assistant({"model": "gpt-4o", "tools": [TOOL]})["id"]
        self.thread = self.threads.create_thread({}).id

    def run(self, text: str, **body: Any) -> Run:
        """Start a run with one more message."""
        more = [{"role": "user", "content": text}]
        given = {"assistant_id": self.assistant, "additional_messages": more, **body}
        return self.threads.carry_out(self.threads.wanted_run(self.thread, given), "key")

    def submit(self, run: Run, *outputs: str) -> Run:
        """Submit an output for each of these calls."""
        body = {"tool_outputs": [{"tool_call_id": one, "output": "1"} for one in outputs]}
        return self.threads.carry_out(self.threads.wanted_outputs(self.thread, run.id, body), "key")

    def later(self, seconds: float = 10.0) -> None:
        """Let time pass."""
        self.clock.now += seconds

    def body(self, run: Run) -> JsonObject:
        """Return the run as it stands now."""
        return run.body(self.clock.now)

    def status(self, run: Run) -> str:
        """Return the run's status now."""
        return run.status(self.clock.now)

    def texts(self) -> list[str]:
        """Return the texts of the thread's messages."""
        return [text_of(one) for one in self.threads.thread(self.thread).messages.values()]


def calls(run: Run) -> list[str]:
    """Return the ids of the calls that a run waits for."""
    return [item["call_id"] for item in run.leg.calls]


def refusal(world: World, action: Any) -> tuple[int, str]:
    """Return status and message of what must be refused."""
    with pytest.raises(ApiError) as refused:
        action()
    return refused.value.status, str(refused.value)


def test_a_run_walks_through_its_calls_to_its_message() -> None:
    """Queued, in progress, waiting for outputs, the same again, completed; usage comes with the end alone."""
    world = World()
    run = world.run("[[call f {}]] [[call f {}]] [[then]] [[say done]]")
    seen = [world.status(run)]
    for seconds in (1.0, 10.0):
        world.later(seconds)
        seen.append(world.status(run))
    assert seen == ["queued", "in_progress", "requires_action"]
    asked = world.body(run)
    assert [one["id"] for one in asked["required_action"]["submit_tool_outputs"]["tool_calls"]] == calls(run)
    assert (asked["usage"], asked["expires_at"] - asked["created_at"]) == (None, 600)
    assert world.status(world.submit(run, *calls(run))) == "queued"
    world.later()
    ended = world.body(run)
    assert (ended["status"], ended["required_action"], ended["expires_at"]) == ("completed", None, None)
    assert ended["completed_at"] - ended["started_at"] == 21
    assert ended["usage"]["total_tokens"] == ended["usage"]["prompt_tokens"] + ended["usage"]["completion_tokens"]
    assert world.texts()[1:] == ["done"]


def test_all_outputs_come_at_once() -> None:
    """Some of them, others, or outputs for a run that does not wait are refused in OpenAI's words."""
    world = World()
    run = world.run("[[call f {}]] [[call f {}]]")
    early = refusal(world, lambda: world.submit(run, "call_x"))
    assert early == (400, 'Runs in status "queued" do not accept tool outputs.')
    world.later()
    first, second = calls(run)
    half = refusal(world, lambda: world.submit(run, first))
    assert half == (400, f"Expected tool outputs for call_ids ['{first}', '{second}'], got ['{first}']")
    assert world.status(run) == "requires_action"
    world.submit(run, second, first)
    assert world.status(run) == "queued"


def test_a_thread_has_one_run_at_a_time() -> None:
    """While it is active a second one and messages are refused, with its name; a thread is free with its end."""
    world = World()
    run = world.run("[[call f {}]]")
    world.later()
    message = {"role": "user", "content": "x"}
    add = refusal(world, lambda: world.threads.add_message(world.thread, message))
    assert add == (400, f"Can't add messages to {world.thread} while a run {run.id} is active.")
    second = refusal(world, lambda: world.run("two"))
    assert second == (400, f"Thread {world.thread} already has an active run {run.id}.")
    assert len(world.texts()) == 1
    world.submit(run, *calls(run))
    world.later()
    assert world.threads.add_message(world.thread, message)["run_id"] is None
    assert world.run("three").id != run.id
    assert world.provider.counters.overlaps == 0


@pytest.mark.parametrize("text", ["[[call f {}]]", "[[hang]]", "[[stuck]]"])
def test_a_run_expires(text: str) -> None:
    """Ten minutes after its creation by default: one without its outputs, one that hangs, one that never began."""
    world = World(expire_seconds=30)
    run = world.run(text)
    world.later(29)
    assert world.status(run) in ("requires_action", "in_progress", "queued")
    world.later(1)
    body = world.body(run)
    assert (body["status"], body["required_action"], body["last_error"]) == ("expired", None, None)
    late = refusal(world, lambda: world.submit(run, *calls(run)))
    assert late == (400, 'Runs in status "expired" do not accept tool outputs.')
    assert world.run("next").id
    assert FaultSettings().expire_seconds == 600


@pytest.mark.parametrize("text", ["x", "[[call f {}]]", "[[hang]]"])
@pytest.mark.parametrize("after", [0.0, 10.0])
def test_a_cancel_takes_a_moment(text: str, after: float) -> None:
    """The run is cancelling and still holds its thread, then cancelled, without a message, and not cancelled twice."""
    world = World(cancelling_seconds=2, latency="11")
    run = world.run(text)
    world.later(after)
    assert world.status(world.threads.cancel_run(world.thread, run.id)) == "cancelling"
    assert "already has an active run" in refusal(world, lambda: world.run("two"))[1]
    world.later(2)
    assert (world.body(run)["status"], world.body(run)["cancelled_at"]) == ("cancelled", int(world.clock.now))
    again = refusal(world, lambda: world.threads.cancel_run(world.thread, run.id))
    assert again == (400, "Cannot cancel run with status 'cancelled'.")
    assert len(world.texts()) == 1
    assert world.run("two").id


def test_a_cancel_may_come_too_late() -> None:
    """By the switch a run goes on to its own end; one that waits for outputs is cancelled all the same."""
    world = World(cancel_completes=True)
    for text, ends in (
        ("[[say done]]", "completed"),
        ("[[hang]] [[say done]]", "completed"),
        ("[[call f {}]]", "cancelled"),
    ):
        run = world.run(text)
        world.later(5)
        assert world.status(world.threads.cancel_run(world.thread, run.id)) == "cancelling"
        world.later(10.2)
        assert world.status(run) == ends
    assert world.texts()[1::2] == ["done", "done"]


def test_the_other_ends() -> None:
    """Failed with a code that the document has, incomplete with the reason and with part of the text."""
    world = World(latency="0")
    failed = world.body(world.run("[[fail quota_gone Quota is gone]]"))
    assert (failed["status"], failed["last_error"]) == ("failed", {"code": "server_error", "message": "Quota is gone"})
    assert failed["failed_at"]
    partial = world.body(world.run("[[say " + "word " * 600 + "]]", max_completion_tokens=256))
    assert (partial["status"], partial["incomplete_details"]) == ("incomplete", {"reason": "max_completion_tokens"})
    assert partial["usage"]["completion_tokens"] == 256
    message = list(world.threads.thread(world.thread).messages.values())[-1]
    assert (message["status"], message["incomplete_details"]) == ("incomplete", {"reason": "max_tokens"})
    long = world.body(world.run("word " * 300, max_prompt_tokens=256))
    assert (long["status"], long["incomplete_details"]) == ("incomplete", {"reason": "max_prompt_tokens"})


def test_a_limit_of_output_is_that_of_the_whole_run() -> None:
    """What the first leg has spent the second one has not."""
    world = World(latency="0")
    text = '[[call f {"a": "' + "word " * 100 + '"}]] [[then]] [[say ' + "word " * 400 + "]]"
    run = world.run(text, max_completion_tokens=300)
    world.submit(run, *calls(run))
    assert (world.body(run)["status"], world.body(run)["usage"]["completion_tokens"]) == ("incomplete", 300)


def test_the_provider_s_limit_is_the_end_of_a_run() -> None:
    """A create beyond it is accepted, and the run fails (provider-facts 5.4)."""
    world = World(latency="0", requests_per_minute=1)
    assert world.status(world.run("x")) == "completed"
    limited = world.body(world.run("x"))
    assert (limited["status"], limited["last_error"]["code"]) == ("failed", "rate_limit_exceeded")
    assert world.provider.counters.limit_refused == 1


def test_settings_of_the_run_go_before_those_of_the_assistant() -> None:
    """Model, instructions and tools are replaced, additional instructions added, the rest is the assistant's."""
    world = World()
    world.threads.update_assistant(world.assistant, {"instructions": "Own.", "temperature": 0.5})
    body = world.body(world.run("x", model="gpt-4.1", tools=[], additional_instructions="And more."))
    assert (body["model"], body["instructions"], body["tools"]) == ("gpt-4.1", "Own. And more.", [])
    assert (body["temperature"], body["top_p"], body["tool_choice"]) == (0.5, 1.0, "auto")


def test_the_model_reads_the_last_messages_only() -> None:
    """As the truncation strategy says; without one it reads all of the thread."""
    world = World(latency="0")
    world.run("word " * 400)
    short = {"type": "last_messages", "last_messages": 1}
    cut, whole = (world.body(world.run("x", truncation_strategy=one)) for one in (short, None))
    assert cut["usage"]["prompt_tokens"] < 20 < whole["usage"]["prompt_tokens"]


def test_the_steps_of_a_run() -> None:
    """The calls, with their outputs once they came, then the message; a step without its outputs ends with the run."""
    world = World()
    run = world.run("[[call f {}]] [[then]] [[say done]]")
    assert steps(run, world.clock.now) == []
    world.later()
    (waiting,) = steps(run, world.clock.now)
    (call,) = waiting["step_details"]["tool_calls"]
    assert (waiting["status"], call["function"]["output"]) == ("in_progress", None)
    world.submit(run, *calls(run))
    world.later()
    called, written = steps(run, world.clock.now)
    assert (called["status"], called["step_details"]["tool_calls"][0]["function"]["output"]) == ("completed", "1")
    message = world.threads.message(world.thread, written["step_details"]["message_creation"]["message_id"])
    assert (message["run_id"], text_of(message)) == (run.id, "done")
    left = world.run("[[call f {}]]")
    world.later()
    world.threads.cancel_run(world.thread, left.id)
    world.later(1)
    assert [(one["status"], one["cancelled_at"]) for one in steps(left, world.clock.now)] == [
        ("cancelled", int(left.end[0]))
    ]


def test_the_counters_know_the_runs_of_a_client() -> None:
    """Two runs for one step show; a run counts as active as long as it holds its thread."""
    world = World()
    metadata = {"run_id": "a", "attempt": "1", "step": "1"}
    run = world.run("[[call f {}]] [[then]] [[say x]]", metadata=metadata)
    world.later()
    counters = world.provider.counters
    assert counters.totals(world.clock.now)["active_in_conversations"] == 1
    world.submit(run, *calls(run))
    world.later()
    assert counters.totals(world.clock.now)["active_in_conversations"] == 0
    assert counters.run("a", world.clock.now) == {
        "provider_runs": 1,
        "requests": 0,
        "conversation": world.thread,
        "first_created_at": run.created,
        "ended_at": run.end[0],
    }
    assert counters.anomalies(world.clock.now)["by_run"] == {}
    world.run("x", metadata=metadata)
    assert counters.anomalies(world.clock.now)["by_run"]["a"]["steps"] == {"1/1": 2}


def test_failures_hold_for_the_first_legs_of_a_client_s_run() -> None:
    """xN counts the legs of all its runs, as it counts creates on Responses; without a run_id each is its own first."""
    world = World(latency="0")
    metadata = {"run_id": "a"}
    ends = [world.status(world.run("[[fail server_error no x2]]", metadata=metadata)) for _ in range(3)]
    assert ends == ["failed", "failed", "completed"]
    assert world.status(world.run("[[fail server_error no x1]]")) == "failed"


def test_a_thread_that_is_deleted_is_gone_with_its_runs() -> None:
    """An active one no longer counts as active."""
    world = World()
    run = world.run("[[hang]]", metadata={"run_id": "a"})
    world.threads.delete_thread(world.thread)
    assert world.threads.run_of(run.id) is None
    assert refusal(world, lambda: world.threads.thread(world.thread))[0] == 404
    assert world.provider.counters.totals(world.clock.now)["active_in_conversations"] == 0
