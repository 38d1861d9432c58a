"""Assistants v2 of the simulator, driven by the real SDK, every exchange judged by OpenAI's published document."""

from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai.types.beta.threads import Run

# The SDK calls all of Assistants deprecated; other servers go on with it.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("alpha", "beta")
]
BOTH = "[[call alpha {}]] [[call beta {}]] [[then]] [[say both done]]"


@pytest.fixture
def assistant(client: openai.OpenAI) -> str:
    """Make an assistant with two tools."""
    made = client.beta.assistants.create(model="gpt-4o", name="A", instructions="Be brief.", tools=TOOLS)
    return made.id


@pytest.fixture
def soon(control: httpx2.Client) -> Iterator[None]:
    """Let runs expire soon."""
    control.post("/_simulator/settings", json={"expire_seconds": 0.3})
    yield
    control.post("/_simulator/settings", json={"expire_seconds": 600})


def start(client: openai.OpenAI, assistant: str, text: str, **options: Any) -> Run:
    """Start a run on a new thread with one message of the user."""
    thread = client.beta.threads.create(messages=[{"role": "user", "content": text}])
    made: Run = client.beta.threads.runs.create(thread.id, assistant_id=assistant, **options)
    return made


def ended(client: openai.OpenAI, run: Run) -> Run:
    """Poll, as the SDK does it, until the run waits or has ended."""
    return client.beta.threads.runs.poll(run.id, thread_id=run.thread_id, poll_interval_ms=20)


def outputs(run: Run) -> list[Any]:
    """Return an output for each call that the run waits for."""
    assert run.required_action
    return [{"tool_call_id": one.id, "output": "1"} for one in run.required_action.submit_tool_outputs.tool_calls]


def submit(client: openai.OpenAI, run: Run, given: list[Any], **options: Any) -> Any:
    """Submit outputs to a run."""
    submit_tool_outputs: Any = client.beta.threads.runs.submit_tool_outputs
    return submit_tool_outputs(run.id, thread_id=run.thread_id, tool_outputs=given, **options)


def test_a_run_with_tools(client: openai.OpenAI, control: httpx2.Client, assistant: str) -> None:
    """Two calls at once, their outputs in one request, the answer in the thread, the steps; counted by its run_id."""
    metadata = {"run_id": "r1", "attempt": "1", "step": "1"}
    run = start(client, assistant, BOTH, metadata=metadata)
    assert (run.status, run.usage, run.tools[0].type) == ("queued", None, "function")
    waiting = ended(client, run)
    assert waiting.status == "requires_action"
    assert waiting.required_action
    calls = waiting.required_action.submit_tool_outputs.tool_calls
    assert [one.function.name for one in calls] == ["alpha", "beta"]
    assert submit(client, waiting, outputs(waiting)).status == "queued"
    done = ended(client, run)
    assert (done.status, done.metadata) == ("completed", {"simulated": "true", **metadata})
    messages = client.beta.threads.messages.list(run.thread_id, order="asc")
    assert [(one.role, one.content[0].text.value) for one in messages] == [  # type: ignore[union-attr]
        ("user", BOTH),
        ("assistant", "both done"),
    ]
    own = client.beta.threads.messages.list(run.thread_id, run_id=run.id).data
    assert [(one.role, one.assistant_id, one.status) for one in own] == [("assistant", assistant, "completed")]
    steps = client.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id, order="asc").data
    assert [one.type for one in steps] == ["tool_calls", "message_creation"]
    assert done.usage
    assert done.usage.total_tokens == sum(one.usage.total_tokens for one in steps if one.usage)
    step = client.beta.threads.runs.steps.retrieve(steps[0].id, thread_id=run.thread_id, run_id=run.id)
    assert step.status == "completed"
    counted = control.get("/_simulator/runs/r1").json()
    assert (counted["provider_runs"], counted["conversation"], counted["steps"]) == (1, run.thread_id, {"1/1": 1})
    assert counted["requests"] > 4


def test_assistants_threads_and_messages(client: openai.OpenAI, control: httpx2.Client, assistant: str) -> None:
    """Everything that the SDK can do with them works, in OpenAI's shapes."""
    beta = client.beta
    control.post("/_simulator/reset")
    made = [beta.assistants.create(model="gpt-4o", name=name).id for name in "abc"]
    assert [one.id for one in beta.assistants.list(order="asc", limit=2)] == made
    page = beta.assistants.list(limit=1)
    assert ([one.id for one in page.data], page.has_more) == ([made[2]], True)
    assert [one.id for one in beta.assistants.list(after=made[2]).data] == [made[1], made[0]]
    assert beta.assistants.update(made[0], instructions="New.", metadata={"a": "b"}).name == "a"
    found = beta.assistants.retrieve(made[0])
    assert (found.instructions, found.metadata) == ("New.", {"a": "b"})
    assert beta.assistants.delete(made[0]).deleted
    parts: Any = [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]
    thread = beta.threads.create(messages=[{"role": "user", "content": parts}], metadata={"t": "1"})
    assert beta.threads.update(thread.id, metadata={"t": "2"}).metadata == {"t": "2"}
    assert beta.threads.retrieve(thread.id).metadata == {"t": "2"}
    second = beta.threads.messages.create(thread.id, role="assistant", content="two", metadata={"m": "1"})
    assert [one.id for one in beta.threads.messages.list(thread.id, limit=1).data] == [second.id]
    updated = beta.threads.messages.update(second.id, thread_id=thread.id, metadata={"m": "2"})
    assert beta.threads.messages.retrieve(second.id, thread_id=thread.id) == updated
    assert beta.threads.messages.delete(second.id, thread_id=thread.id).deleted
    assert beta.threads.messages.list(thread.id, run_id="run_x").data == []
    assert beta.threads.delete(thread.id).deleted
    for gone in (lambda: beta.threads.retrieve(thread.id), lambda: beta.assistants.retrieve(made[0])):
        with pytest.raises(openai.NotFoundError, match=r"No (thread|assistant) found with id '(thread|asst)_\w+'\."):
            gone()


def test_runs_are_listed_changed_and_cancelled(client: openai.OpenAI, assistant: str) -> None:
    """The newest first; a cancelled one passes through cancelling, and frees its thread."""
    runs = client.beta.threads.runs
    first = start(client, assistant, "[[hang]]")
    assert runs.cancel(first.id, thread_id=first.thread_id).status == "cancelling"
    assert ended(client, first).status == "cancelled"
    more: Any = [{"role": "user", "content": "[[say two]]"}]
    second = runs.create(first.thread_id, assistant_id=assistant, additional_messages=more, metadata={"a": "1"})
    assert runs.update(second.id, thread_id=first.thread_id, metadata={"a": "2"}).metadata == {
        "simulated": "true",
        "a": "2",
    }
    assert ended(client, second).status == "completed"
    assert [one.id for one in runs.list(first.thread_id).data] == [second.id, first.id]
    assert [one.id for one in runs.list(first.thread_id, order="asc", limit=1).data] == [first.id]


@pytest.mark.parametrize(
    ("text", "options", "status"),
    [
        ("[[fail server_error no]]", {}, "failed"),
        ("[[say " + "word " * 600 + "]]", {"max_completion_tokens": 256}, "incomplete"),
        ("[[hang]]", {}, "expired"),
    ],
)
@pytest.mark.usefixtures("soon")
def test_the_other_ends_of_a_run(client: openai.OpenAI, assistant: str, text: str, options: Any, status: str) -> None:
    """Each in the document's shape."""
    run = ended(client, start(client, assistant, text, **options))
    assert run.status == status
    assert (run.last_error is None, run.incomplete_details is None) == (status != "failed", status != "incomplete")


def test_errors_have_openai_s_bodies(client: openai.OpenAI, assistant: str) -> None:
    """A busy thread, half of the outputs, a run without the header: each with 400 and its words."""
    run = ended(client, start(client, assistant, BOTH))
    with pytest.raises(openai.BadRequestError, match=f"Thread {run.thread_id} already has an active run {run.id}"):
        client.beta.threads.runs.create(run.thread_id, assistant_id=assistant)
    with pytest.raises(openai.BadRequestError, match=f"Can't add messages to {run.thread_id} while a run {run.id} is"):
        client.beta.threads.messages.create(run.thread_id, role="user", content="x")
    with pytest.raises(openai.BadRequestError, match="Expected tool outputs for call_ids"):
        submit(client, run, outputs(run)[:1])
    submit(client, run, outputs(run))
    with pytest.raises(openai.BadRequestError, match='Runs in status "completed" do not accept tool outputs'):
        submit(client, ended(client, run), outputs(run))
    with pytest.raises(openai.BadRequestError, match="Cannot cancel run with status 'completed'"):
        client.beta.threads.runs.cancel(run.id, thread_id=run.thread_id)
    with pytest.raises(openai.BadRequestError) as headerless:
        client.post("/threads", body={}, cast_to=object)
    assert headerless.value.code == "invalid_beta"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"assistant_id": "asst_x"}, "No assistant found with id 'asst_x'"),
        ({}, "Missing required parameter: 'assistant_id'"),
        ({"assistant_id": "asst_x", "input": "x"}, "Unknown parameter: 'input'"),
        ({"assistant_id": "asst_x", "temperature": 3}, "above maximum value"),
        ({"assistant_id": "asst_x", "max_prompt_tokens": 10}, "a value >= 256"),
        (
            {"assistant_id": "asst_x", "additional_messages": [{"role": "tool", "content": "x"}]},
            "Invalid value: 'tool'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(client: openai.OpenAI, body: Any, words: str) -> None:
    """By name, and nothing is begun."""
    thread = client.beta.threads.create()
    with pytest.raises(openai.APIStatusError, match=words):
        client.post(
            f"/threads/{thread.id}/runs",
            body=body,
            cast_to=object,
            options={"headers": {"OpenAI-Beta": "assistants=v2"}},
        )
    assert client.beta.threads.runs.list(thread.id).data == []
    assert client.beta.threads.messages.list(thread.id).data == []


def test_a_header_says_when_to_look_again(client: openai.OpenAI, control: httpx2.Client, assistant: str) -> None:
    """While the run goes on, and not once it has ended."""
    run = start(client, assistant, "x")
    looks = client.beta.threads.runs.with_raw_response
    assert looks.retrieve(run.id, thread_id=run.thread_id).headers["openai-poll-after-ms"] == "1000"
    ended(client, run)
    assert "openai-poll-after-ms" not in looks.retrieve(run.id, thread_id=run.thread_id).headers


def test_a_stream_to_the_calls_and_one_to_the_end(client: openai.OpenAI, assistant: str) -> None:
    """Recorded events in the recorded order; deltas make arguments and text, and the last event is the whole run."""
    first: Any = list(start(client, assistant, BOTH, stream=True))
    assert [one.event for one in first[:5]] == [
        "thread.run.created",
        "thread.run.queued",
        "thread.run.in_progress",
        "thread.run.step.created",
        "thread.run.step.in_progress",
    ]
    assert first[-1].event == "thread.run.requires_action"
    waiting = first[-1].data
    pieces = [one.data.delta.step_details.tool_calls[0] for one in first if one.event == "thread.run.step.delta"]
    assert [(one.index, one.function.name) for one in pieces if one.id] == [(0, "alpha"), (1, "beta")]
    second = list(submit(client, waiting, outputs(waiting), stream=True))
    assert [one.event for one in second[:3]] == [
        "thread.run.step.completed",
        "thread.run.queued",
        "thread.run.in_progress",
    ]
    assert [one.event for one in second[-3:]] == [
        "thread.message.completed",
        "thread.run.step.completed",
        "thread.run.completed",
    ]
    deltas = [one.data.delta.content[0].text.value for one in second if one.event == "thread.message.delta"]
    assert "".join(deltas) == "both done"
    assert second[-1].data == client.beta.threads.runs.retrieve(waiting.id, thread_id=waiting.thread_id)
    message = client.beta.threads.messages.list(waiting.thread_id).data[0]
    assert second[-3].data == message


@pytest.mark.parametrize(("text", "last"), [("[[fail server_error no]]", "failed"), ("[[incomplete]] x", "incomplete")])
def test_a_stream_to_another_end(client: openai.OpenAI, assistant: str, text: str, last: str) -> None:
    """Each end has its event."""
    events: Any = list(start(client, assistant, text, stream=True))
    assert events[-1].event == f"thread.run.{last}"
    assert events[-1].data.status == last
