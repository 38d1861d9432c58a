"""The rules between conversations and responses, on a clock that the test turns."""

import dataclasses
from typing import Any

import pytest

from simulator.conversations import Conversation, Page
from simulator.counters import Counters
from simulator.errors import ApiError
from simulator.faults import Faults, FaultSettings, changed
from simulator.provider import Provider
from simulator.responses import Response
from simulator.wire import JsonObject

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True}


@dataclasses.dataclass
class Clock:
    """Seconds that pass when the test says so."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A provider whose responses take ten seconds, and one conversation in it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.provider = Provider(Faults(FaultSettings(latency="10")), self.clock)
        self.conversation = self.provider.create_conversation({}).id

    def create(self, given: Any, **body: Any) -> Response:
        """Create a background response on the conversation, unless the body says otherwise."""
        defaults = {"model": "gpt-4o", "background": True, "store": True, "conversation": self.conversation}
        return self.provider.create_response({**defaults, "input": given, "tools": [TOOL], **body})

    def later(self, seconds: float = 10.0) -> None:
        """Let time pass."""
        self.clock.now += seconds

    def kinds(self) -> list[str]:
        """Return the types of the conversation's items."""
        return [item["type"] for item in self.found().items.values()]

    def found(self) -> Conversation:
        """Return the conversation."""
        return self.provider.conversation(self.conversation)

    def body(self, response: Response) -> JsonObject:
        """Return the response as it stands now."""
        return response.body(self.clock.now)

    def call(self) -> str:
        """Let a response call f, end it, and return the call's id."""
        response = self.create("[[call f {}]]")
        self.later()
        return str(self.body(response)["output"][0]["call_id"])


@pytest.fixture
def world() -> World:
    return World()


def refusal(world: World, given: Any, **body: Any) -> tuple[int, str | None, str]:
    """Return status, code and message of a create that must be refused."""
    with pytest.raises(ApiError) as refused:
        world.create(given, **body)
    error = refused.value.body["error"]
    return refused.value.status, error["code"], error["message"]


def test_a_response_walks_from_queued_to_completed(world: World) -> None:
    """The status follows the clock alone; times and usage come with the end."""
    response = world.create("hello there")
    seen = []
    for _ in range(3):
        seen.append(world.body(response)["status"])
        world.later(5.0)
    assert seen == ["queued", "in_progress", "completed"]
    body = world.body(response)
    assert body["completed_at"] == body["created_at"] + 10
    assert body["usage"]["input_tokens"] == 3
    assert body["metadata"] == {"simulated": "true"}


def test_items_join_the_conversation_when_the_response_completes(world: World) -> None:
    """Neither input nor output is in the conversation before the end; both are after it, in order."""
    world.create("hello")
    assert world.kinds() == []
    world.later()
    assert [item["role"] for item in world.found().items.values()] == ["user", "assistant"]


@pytest.mark.parametrize("text", ["[[fail server_error broken]]", "[[hang]]"])
def test_nothing_joins_the_conversation_from_a_failed_or_cancelled_response(world: World, text: str) -> None:
    """A failure and a cancel leave the conversation as it was, and free."""
    response = world.create(text)
    world.later()
    world.provider.cancel_response(response.id)
    assert world.body(response)["status"] in ("failed", "cancelled")
    assert world.kinds() == []
    assert world.create("again").id


def test_a_busy_conversation_refuses_a_second_response(world: World) -> None:
    """The lock holds while a response is queued or in progress, and not a moment longer."""
    world.create("one")
    world.later(9.9)
    message = "Another process is currently operating on this conversation. Please retry in a few seconds."
    assert refusal(world, "two") == (400, "conversation_locked", message)
    world.later(0.1)
    assert world.create("two").id


def test_an_unanswered_call_poisons_the_conversation(world: World) -> None:
    """Any create without the call's output is refused until the output comes."""
    call_id = world.call()
    assert refusal(world, "go on") == (400, None, f"No tool output found for function call {call_id}.")
    world.create([{"type": "function_call_output", "call_id": call_id, "output": "1"}])
    world.later()
    assert world.kinds() == ["message", "function_call", "function_call_output", "message"]
    assert world.create("go on").id


def test_an_output_without_its_call_is_refused(world: World) -> None:
    """An output must answer a call of the conversation."""
    message = "No tool call found for function call output with call_id call_x."
    output = {"type": "function_call_output", "call_id": "call_x", "output": "1"}
    assert refusal(world, [output]) == (400, None, message)


def test_the_conversation_and_a_previous_response_exclude_each_other(world: World) -> None:
    """Only one way of keeping state can be used."""
    response = world.create("one")
    world.later()
    assert refusal(world, "two", previous_response_id=response.id)[1] == "mutually_exclusive_parameters"


def test_a_chain_of_previous_responses_carries_its_calls(world: World) -> None:
    """Without a conversation the chain itself is the history; a missing link is refused."""
    first = world.create("[[call f {}]]", conversation=None)
    world.later()
    call_id = world.body(first)["output"][0]["call_id"]
    output = {"type": "function_call_output", "call_id": call_id, "output": "41"}
    assert world.create([output], conversation=None, previous_response_id=first.id).id
    refused = refusal(world, "x", conversation=None, previous_response_id="resp_gone")
    assert refused == (400, "previous_response_not_found", "Previous response with id 'resp_gone' not found.")


def test_too_few_tokens_leave_a_part_of_the_text(world: World) -> None:
    """The response is incomplete, says why, and its part stays in the conversation."""
    text = "one two three four five six " * 10
    response = world.create(f"[[say {text}]]", max_output_tokens=16)
    world.later()
    body = world.body(response)
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert body["output"][0]["content"][0]["text"] == text[:64]
    assert body["usage"]["output_tokens"] == 16
    assert world.kinds() == ["message", "message"]


def test_a_cancel_is_idempotent_and_spares_what_has_ended(world: World) -> None:
    """The first cancel ends the response; later ones change nothing; a foreground response has no cancel."""
    response, done = world.create("[[hang]]"), world.create("x", conversation=None)
    world.later(1e6)
    assert [world.body(world.provider.cancel_response(response.id))["status"] for _ in range(2)] == ["cancelled"] * 2
    assert world.body(world.provider.cancel_response(done.id))["status"] == "completed"
    foreground = world.create("x", background=False)
    with pytest.raises(ApiError, match="Cannot cancel a synchronous response"):
        world.provider.cancel_response(foreground.id)


def test_a_failure_for_the_first_creates_counts_by_client_run(world: World) -> None:
    """x1 fails the first create of each run_id and lets its second succeed."""
    ends = []
    for run_id in ("a", "a", "b"):
        response = world.create("[[fail server_error broken x1]]", metadata={"run_id": run_id})
        world.later()
        ends.append(world.body(response)["status"])
    assert ends == ["failed", "completed", "failed"]
    assert world.provider.counters.run("a", world.clock.now) == {
        "provider_runs": 2,
        "requests": 0,
        "conversation": world.conversation,
        "first_created_at": world.clock.now - 30,
        "ended_at": world.clock.now - 10,
    }


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": None}, "missing_required_parameter"),
        ({"model": "claude"}, "model_not_found"),
        ({"zzz": 1}, "unknown_parameter"),
        ({"temperature": -1}, "decimal_below_min_value"),
        ({"max_output_tokens": 0}, "integer_below_min_value"),
        ({"background": "yes"}, "invalid_type"),
        ({"metadata": {str(at): "v" for at in range(17)}}, "object_above_max_properties"),
        ({"metadata": {"k" * 65: "v"}}, "property_name_above_max_length"),
        ({"metadata": {"k": "v" * 513}}, "string_above_max_length"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "invalid_value"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "missing_required_parameter"),
        ({"stream": "yes"}, "invalid_type"),
        ({"background_options": "8h"}, "invalid_type"),
        ({"background_options": {"window": "8h"}}, "unknown_parameter"),
        ({"background_options": {"completion_window": "24h"}}, "invalid_value"),
        ({"background_options": {"completion_window": 8}}, "invalid_type"),
        ({"background_options": {"continuation_id": 1}}, "invalid_type"),
    ],
)
def test_a_request_that_openai_refuses_is_refused(world: World, body: JsonObject, code: str) -> None:
    """Each with OpenAI's code, before anything is created."""
    assert refusal(world, "x", **body)[:2] == (400, code)
    assert world.provider.counters.provider_runs == 0


@pytest.mark.parametrize("window", ["2h", "8h"])
@pytest.mark.parametrize(
    ("body", "named"),
    [({"background": False}, "background"), ({"stream": True}, "stream"), ({"service_tier": "flex"}, "service_tier")],
)
def test_a_window_needs_background_standard_and_no_stream(
    world: World, window: str, body: JsonObject, named: str
) -> None:
    """Expected: refused by the rules of the SDK's BackgroundOptions; the soonest takes all of it."""
    status, code, message = refusal(world, "x", background_options={"completion_window": window}, **body)
    assert (status, code) == (400, "invalid_value")
    assert window in message
    assert f"'{named}'" in message
    assert world.create("x", background_options={"completion_window": "soonest"}, **body)


@pytest.mark.parametrize("more", [{}, {"service_tier": "default", "stream": False}, {"service_tier": "auto"}])
def test_a_window_is_taken_and_kept(world: World, more: JsonObject) -> None:
    """Expected: what was sent can be seen afterwards."""
    options = {"completion_window": "8h", "continuation_id": "run-1"}
    assert world.create("x", background_options=options, **more).request["background_options"] == options


def test_overlaps_are_counted_without_the_lock() -> None:
    """Two active responses of one conversation overlap; one after the other, or on another one, they do not."""
    counters = Counters()
    counters.began("r1", {"run_id": "a", "step": "1"}, "c1", at=0.0, end=10.0)
    counters.began("r2", {"run_id": "b", "step": "1"}, "c2", at=1.0, end=10.0)
    counters.began("r3", {"run_id": "a", "step": "1"}, "c1", at=10.0, end=20.0)
    assert counters.overlaps == 0
    counters.began("r4", {"run_id": "c"}, "c1", at=19.0, end=30.0)
    counters.cut("r4", "c", "c1", at=20.0)
    counters.began("r5", {"run_id": "c"}, "c1", at=20.0, end=30.0)
    report = counters.report(40.0, by_run=False)
    assert (report["overlaps"], report["duplicate_steps"]) == (1, 1)
    assert report["order"] == {"c1": ["a", "c"], "c2": ["b"]}


def test_faults_repeat_with_their_seed() -> None:
    """The same seed gives the same errors in the same places, in about the share that was set."""
    settings = FaultSettings(rate_limit_share=0.2, error_share=0.1, seed=7)
    first, second = Faults(settings), Faults(settings)
    names, again = ([getattr(faults.gate(), "name", None) for _ in range(2000)] for faults in (first, second))
    assert names == again
    assert 0.17 < names.count("rate_limit_exceeded") / 2000 < 0.23
    assert 0.07 < names.count("server_error") / 2000 < 0.13


@pytest.mark.parametrize("latency", ["0.5:1.5", "1", "lognormal:1.0:0.5"])
def test_latency_follows_its_setting(latency: str) -> None:
    """Uniform stays in its bounds, lognormal lies around its median."""
    faults = Faults(FaultSettings(latency=latency))
    drawn = sorted(faults.latency() for _ in range(999))
    assert 0.9 < drawn[499] < 1.1
    assert latency != "0.5:1.5" or (drawn[0] >= 0.5 and drawn[-1] <= 1.5)


@pytest.mark.parametrize("wrong", [{"latency": "fast"}, {"latency": "2:1"}, {"error_share": "2"}, {"speed": 1}])
def test_a_wrong_setting_is_named(wrong: JsonObject) -> None:
    """The error says which setting is wrong."""
    with pytest.raises(ValueError, match=r"latency|share|speed"):
        changed(FaultSettings(), wrong)


def test_pages_walk_through_all_items() -> None:
    """Following last_id through the pages gives every item once, in the order asked for."""
    items = [{"id": f"i{at}"} for at in range(5)]
    seen: list[str] = []
    page: JsonObject = {"has_more": True, "last_id": None}
    while page["has_more"]:
        page = Page(limit=2, order="desc", after=page["last_id"]).cut(items)
        seen += [item["id"] for item in page["data"]]
    assert seen == ["i4", "i3", "i2", "i1", "i0"]
