"""The simulator on a real socket, driven by the real SDK, every exchange judged by OpenAI's published document."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import yaml
from openai.types.responses import Response

from tests.servers import wait_until

TOOLS: list[Any] = [
    {
        "type": "function",
        "name": name,
        "description": f"{name} something",
        "parameters": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        "strict": True,
    }
    for name in ("alpha", "beta")
]


def ended(client: openai.OpenAI, response: Response) -> Response:
    """Poll until the response has ended."""
    while response.status in ("queued", "in_progress"):
        response = client.responses.retrieve(response.id)
    return response


def start(client: openai.OpenAI, text: Any, **options: Any) -> Response:
    """Create a background response."""
    made: Response = client.responses.create(model="gpt-4o", input=text, background=True, store=True, **options)
    return made


def test_a_run_with_tools_on_a_conversation(client: openai.OpenAI, control: httpx2.Client) -> None:
    """Create, poll, two calls at once, their outputs in one request, the answer, the items in order."""
    conversation = client.conversations.create(metadata={"thread": "t1"})
    named: Any = {"conversation": conversation.id, "tools": TOOLS, "metadata": {"run_id": "r1", "step": "1"}}
    first = start(client, "[[call alpha {}]] [[call beta {}]] [[say both done]]", **named)
    assert first.status == "queued"
    assert first.output == []
    first = ended(client, first)
    calls = [item for item in first.output if item.type == "function_call"]
    assert [call.name for call in calls] == ["alpha", "beta"]
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "1"} for call in calls]
    second = ended(client, start(client, outputs, **{**named, "metadata": {"run_id": "r1", "step": "2"}}))
    assert second.output_text == "both done"
    assert second.metadata == {"simulated": "true", "run_id": "r1", "step": "2"}
    items = client.conversations.items.list(conversation.id, order="asc", limit=100)
    assert [item.type for item in items] == [
        "message",
        *["function_call"] * 2,
        *["function_call_output"] * 2,
        "message",
    ]
    run = control.get("/_simulator/runs/r1").json()
    assert (run["provider_runs"], run["conversation"]) == (2, conversation.id)
    counters = control.get("/_simulator/counters?by_run=0").json()
    assert (counters["overlaps"], counters["duplicate_steps"]) == (0, 0)
    assert counters["order"] == {conversation.id: ["r1"]}
    assert "by_run" not in counters


def test_a_foreground_response_and_its_settings(client: openai.OpenAI) -> None:
    """The answer comes in the first reply, with every setting echoed."""
    response = client.responses.create(
        model="gpt-4.1",
        input=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Reply exactly: stored"}],
        instructions="Follow.",
        temperature=0.5,
        max_output_tokens=50,
        truncation="auto",
        text={"format": {"type": "json_object"}},
        tools=TOOLS,
        tool_choice="none",
        parallel_tool_calls=False,
    )
    assert response.output_text == '{"answer": "stored"}'
    assert (response.temperature, response.max_output_tokens, response.truncation) == (0.5, 50, "auto")
    assert (response.status, response.parallel_tool_calls, response.model) == ("completed", False, "gpt-4.1-2025-04-14")
    listed = client.responses.input_items.list(response.id, order="asc")
    assert [getattr(item, "role", None) for item in listed] == ["developer", "user"]
    chained = client.responses.create(model="gpt-4.1", input="again", previous_response_id=response.id)
    assert chained.previous_response_id == response.id
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError, match=f"Response with id '{response.id}' not found"):
        client.responses.retrieve(response.id)


def test_the_other_ends_of_a_response(client: openai.OpenAI) -> None:
    """Failed, incomplete and cancelled each say so as OpenAI does."""
    failed = ended(client, start(client, "[[fail rate_limit_exceeded Quota is gone]]"))
    assert failed.status == "failed"
    assert failed.error
    assert (failed.error.code, failed.error.message) == ("rate_limit_exceeded", "Quota is gone")
    partial = ended(client, start(client, "[[say " + "word " * 100 + "]]", max_output_tokens=20))
    assert partial.status == "incomplete"
    assert partial.incomplete_details
    assert partial.incomplete_details.reason == "max_output_tokens"
    assert partial.output_text
    hanging = start(client, "[[hang]]")
    assert client.responses.cancel(hanging.id).status == "cancelled"
    assert client.responses.cancel(hanging.id).status == "cancelled"


def test_conversations_and_their_items(client: openai.OpenAI) -> None:
    """Everything that the SDK can do with a conversation works, in OpenAI's shapes."""
    message: Any = {"type": "message", "role": "user", "content": "hello"}
    conversation = client.conversations.create(items=[message])
    assert client.conversations.retrieve(conversation.id).metadata == {}
    assert client.conversations.update(conversation.id, metadata={"a": "b"}).metadata == {"a": "b"}
    added = client.conversations.items.create(conversation.id, items=[message, message])
    assert len(added.data) == 2
    page = client.conversations.items.list(conversation.id, limit=2)
    assert (page.data[0].id, page.has_more) == (added.last_id, True)
    assert len(list(page)) == 3
    assert client.conversations.items.retrieve(added.first_id, conversation_id=conversation.id).id == added.first_id
    client.conversations.items.delete(added.first_id, conversation_id=conversation.id)
    with pytest.raises(openai.NotFoundError, match="not found in conversation"):
        client.conversations.items.retrieve(added.first_id, conversation_id=conversation.id)
    with pytest.raises(openai.BadRequestError, match="maximum length 20"):
        client.conversations.items.create(conversation.id, items=[message] * 21)
    assert client.conversations.delete(conversation.id).deleted
    with pytest.raises(openai.NotFoundError, match="Conversation with id"):
        client.conversations.retrieve(conversation.id)


def test_errors_have_openai_s_bodies(client: openai.OpenAI, base_url: str, http: httpx2.Client) -> None:
    """Lock, poisoning, a missing key and a wrong URL reach the SDK as its own exceptions."""
    conversation = client.conversations.create().id
    hanging = start(client, "[[hang]]", conversation={"id": conversation})
    with pytest.raises(openai.BadRequestError) as locked:
        start(client, "second", conversation=conversation)
    assert (locked.value.code, locked.value.param) == ("conversation_locked", "conversation")
    client.responses.cancel(hanging.id)
    ended(client, start(client, "[[call alpha {}]]", conversation=conversation, tools=TOOLS))
    with pytest.raises(openai.BadRequestError, match="No tool output found for function call call_"):
        start(client, "go on", conversation=conversation)
    with pytest.raises(openai.BadRequestError, match="No tool call found for function call output with call_id call_x"):
        start(client, [{"type": "function_call_output", "call_id": "call_x", "output": ""}])
    keyless = http.get(f"{base_url}/models")
    assert keyless.status_code == 401
    assert keyless.json()["error"]["message"].startswith("You didn't provide an API key")
    with pytest.raises(openai.NotFoundError, match=r"Invalid URL \(GET /v1/nowhere\)"):
        client.get("/nowhere", cast_to=object)


def test_models_are_listed(client: openai.OpenAI) -> None:
    """The list and its entries have OpenAI's shape; what is not in it does not exist; the shipped assistants' is."""
    shipped = yaml.safe_load(Path("assistants.yaml").read_text())["assistants"].values()
    assert {model.id for model in client.models.list()} >= {"gpt-4o", "gpt-5.6", *(one["model"] for one in shipped)}
    assert client.models.retrieve("gpt-4o").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_every_answer_carries_openai_s_headers(client: openai.OpenAI) -> None:
    """Request id, time and rate limits are there, as the SDK and backoff code read them."""
    answer = client.models.with_raw_response.list()
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.request_id or "")
    assert {"openai-processing-ms", "openai-version", "x-ratelimit-remaining-requests"} <= set(answer.headers)


def test_injected_faults_reach_the_client_and_the_counters(client: openai.OpenAI, control: httpx2.Client) -> None:
    """429 comes with Retry-After, 500 plain; both are counted and nothing is created."""
    control.post("/_simulator/settings", json={"rate_limit_share": 1.0, "retry_after": 2})
    with pytest.raises(openai.RateLimitError) as limited:
        start(client, "x", metadata={"run_id": "r9"})
    assert limited.value.response.headers["retry-after"] == "2"
    control.post("/_simulator/settings", json={"rate_limit_share": 0.0, "error_share": 1.0})
    with pytest.raises(openai.InternalServerError):
        client.responses.retrieve("resp_x")
    counters = control.get("/_simulator/counters").json()
    assert counters["rejected"] == {"rate_limit_exceeded": 1, "server_error": 1}
    assert (counters["provider_runs"], counters["by_run"]["r9"]["requests"]) == (0, 1)
    assert control.get("/healthz").json()["status"] == "ok"


def test_a_wrong_setting_is_refused_with_its_name(control: httpx2.Client) -> None:
    """The settings route answers 400 with one sentence and changes nothing."""
    before = control.get("/_simulator/settings").json()
    answer = control.post("/_simulator/settings", json={"latency": "soon"})
    assert (answer.status_code, "latency" in answer.json()["error"]) == (400, True)
    assert control.get("/_simulator/settings").json() == before


async def _many(base_url: str, count: int) -> list[str]:
    async with openai.AsyncOpenAI(api_key="test", base_url=base_url, max_retries=0) as client:
        created = [
            await client.responses.create(model="gpt-4o", input="[[hang]]", background=True) for _ in range(count)
        ]
        return [(await client.responses.cancel(one.id)).status or "" for one in created]


def test_the_asynchronous_client_works_as_well(base_url: str, control: httpx2.Client) -> None:
    """AsyncOpenAI creates and cancels; the counters see every one of them."""
    assert set(asyncio.run(_many(base_url, 20))) == {"cancelled"}
    assert control.get("/_simulator/counters?by_run=0").json()["provider_runs"] == 20


def streamed(client: openai.OpenAI, text: Any, **options: Any) -> list[Any]:
    """Create a response as a stream and return all its events."""
    with client.responses.create(model="gpt-4o", input=text, stream=True, **options) as stream:
        return list(stream)


def test_a_stream_tells_a_response_from_its_creation_to_its_end(client: openai.OpenAI) -> None:
    """OpenAI's events in its order, numbered; the deltas make the text, and the last event is the whole response."""
    events = streamed(client, "[[say one two three]]", background=True, store=True)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:5] == ["created", "queued", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "one two three"
    assert events[0].response.status == "queued"
    assert events[-1].response == client.responses.retrieve(events[-1].response.id)


@pytest.mark.parametrize(
    ("text", "options", "last"),
    [
        ("[[call alpha {}]]", {"tools": TOOLS}, "completed"),
        ("[[fail server_error no]]", {}, "failed"),
        ("[[say " + "word " * 100 + "]]", {"max_output_tokens": 20}, "incomplete"),
    ],
)
def test_each_end_has_its_last_event(client: openai.OpenAI, text: str, options: dict[str, Any], last: str) -> None:
    """Also in the foreground: calls with their arguments, a failure, an answer that was cut."""
    events = streamed(client, text, **options)
    assert (events[-1].type, events[-1].response.status) == (f"response.{last}", last)
    arguments = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert arguments == (["{", "}"] if "tools" in options else [])


def test_events_can_be_had_once_more(client: openai.OpenAI) -> None:
    """Those behind a number, of a response that was created as a stream in background mode; of no other."""
    events = streamed(client, "[[say again]]", background=True, store=True)
    ident = events[0].response.id
    with client.responses.retrieve(ident, stream=True, starting_after=2) as again:
        assert [event.sequence_number for event in again] == list(range(3, len(events)))
    with pytest.raises(openai.BadRequestError, match=r"not created with stream=true\."):
        client.responses.retrieve(start(client, "x").id, stream=True)
    with pytest.raises(openai.BadRequestError, match=r"not created with background=true\.") as foreground:
        client.responses.retrieve(streamed(client, "x")[0].response.id, stream=True)
    assert (foreground.value.code, foreground.value.param) == ("invalid_request_error", "stream")


def test_a_stream_that_nobody_reads_any_more_is_closed(client: openai.OpenAI, control: httpx2.Client) -> None:
    """The counters see it open, and gone after the client left; the response goes on in background mode."""
    with openai.OpenAI(api_key="test", base_url=str(control.base_url) + "/v1", max_retries=0) as plain:
        stream = plain.responses.create(model="gpt-4o", input="[[hang]]", background=True, stream=True)
        ident = next(stream).response.id  # type: ignore[union-attr]
        assert control.get("/_simulator/counters").json()["streams_open"] == 1
        stream.close()
    wait_until(lambda: control.get("/_simulator/counters").json()["streams_open"] == 0, "the stream to be left")
    assert client.responses.retrieve(ident).status in {"queued", "in_progress"}
    assert client.responses.cancel(ident).status == "cancelled"
    assert control.get("/_simulator/counters").json()["streams"] == 1
