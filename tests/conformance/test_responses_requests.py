"""What the Responses backend sends, before OpenAI's published document."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from openai.types.responses.response_create_params import BackgroundOptions

from tests.recordings import published
from tests.scripted import EMPTY, Request, answer, backend_at, saying, scripted, step, transience
from tools.registry import Registry
from worker.assistants.configuration import AssistantConfig
from worker.backends.base import Step
from worker.backends.places import FOR_A_MODEL, PROTOCOLS
from worker.errors import ProviderError
from worker.response import Answer, Opened


def sent(one: Step) -> Request:
    """Return the request that creating a step sends."""

    async def story() -> Request:
        async with scripted(saying(answer(200, EMPTY))) as server, backend_at(server.url) as backend:
            assert (await backend.create(one)).id == "resp_1"
            return server.requests[0]

    return asyncio.run(story())


SCHEMA = {"type": "object", "properties": {"größe": {"type": "number"}}, "required": ["größe"]}
SETTINGS: dict[str, Any] = {
    "model": "gpt-5.2",
    "description": "for people",
    "instructions": "Antworte kurz. 日本語 🎈",
    "tools": ["calculate"],
    "temperature": 0.5,
    "top_p": 1,
    "max_output_tokens": 16,
    "reasoning_effort": "low",
    "parallel_tool_calls": False,
    "tool_choice": "required",
    "response_format": {"name": "answer", "schema": SCHEMA, "description": "d", "strict": True},
    "truncation": "auto",
    "service_tier": "default",
    "completion_window": "8h",
    "max_steps": 3,
    "max_attempts": 2,
    "timeout": 28_800.0,
    "approval": ["calculate"],
    "step_timeout": 28_800.0,
    "max_active": 7,
    "stream": False,
    "backend": "responses",
    "context_window": 8192,
    "additional_instructions": "More.",
    "max_prompt_tokens": 256,
    "hosted_tools": {
        "code_interpreter": {"file_ids": ["file_1"]},
        "file_search": {"vector_store_ids": ["vs_1"], "max_num_results": 5},
    },
}
ALL = AssistantConfig.model_validate(SETTINGS).model_dump(mode="json", exclude_none=True)
LOADED = Registry.load().tools
ANSWERS = [Answer("call_1", '{"error": {"type": "timeout"}}'), Answer("call_2", "ü\ud800\x00")]
STEPS = {
    "text": step(),
    "unicode": step(text="Grüße \U0001f600 \x7f \u2028"),
    "every setting": step(ALL, tools=LOADED),
    "outputs": step(ALL, text="", tools=LOADED, answers=ANSWERS),
    "outputs before a new message": step(answers=ANSWERS),
    **{f"only {key}": step({key: ALL[key]}) for key in ALL},
}


@pytest.fixture(scope="module")
def document() -> Any:
    return published()


@pytest.mark.parametrize("name", STEPS)
def test_every_request_conforms(name: str, document: Any) -> None:
    """OpenAI's published document accepts what a create sends, and knows every property of it."""
    request = sent(STEPS[name])
    assert request.headers["content-type"] == "application/json"
    assert document.judge_request("POST", "/responses", "application/json", request.body) == []
    body = json.loads(request.body)
    # The published document is older than the windows: openai 3.54 has them (BackgroundOptions).
    told = {key: value for key, value in body.items() if key != "background_options"}
    assert document.unknown(document.named("CreateResponse"), told) == []
    assert ("background_options" in body) == ("completion_window" in STEPS[name].config)
    assert (body["background"], body["store"], body["conversation"]) == (True, True, "conv_1")


def test_the_conversation_request_conforms(document: Any) -> None:
    """A thread's id of any length fits into the metadata."""

    async def story() -> bytes:
        async with scripted(saying(answer(200, {"id": "conv_1"}))) as server, backend_at(server.url) as backend:
            assert await backend.open_conversation("ü" * 600) == Opened("conv_1")
            return server.requests[0].body

    body = asyncio.run(story())
    assert json.loads(body) == {"metadata": {"thread_id": "ü" * 512}}
    assert document.judge_request("POST", "/conversations", "application/json", body) == []


def test_every_setting_is_tried() -> None:
    """A key that an assistant may have and this file does not know would be sent unjudged."""
    assert set(SETTINGS) == set(AssistantConfig.model_fields)


def test_every_setting_for_the_model_reaches_it() -> None:
    """What is the worker's own stays here; the rest arrives with its value."""
    limits = {"max_steps", "max_attempts", "max_active", "timeout", "step_timeout"}
    others = FOR_A_MODEL - PROTOCOLS["responses"].settings
    ours = {"description", "tools", "approval", "stream", "backend", *limits, *others}
    body = json.loads(sent(STEPS["every setting"]).body)
    assert body["reasoning"] == {"effort": "low"}
    assert body["text"] == {"format": ALL["response_format"]}
    assert body["text"]["format"]["schema"] == SCHEMA
    assert body["background_options"] == {"completion_window": "8h", "continuation_id": STEPS["text"].run_id}
    renamed = {"reasoning_effort", "response_format", "hosted_tools", "completion_window"}
    assert {key: body[key] for key in set(ALL) - ours - renamed} == {
        key: value for key, value in ALL.items() if key not in ours | renamed
    }
    assert not (ours - {"tools"}) & set(body)
    functions = [tool["name"] for tool in body["tools"] if tool["type"] == "function"]
    assert functions == [tool.name for tool in LOADED]
    assert body["tools"][len(functions) :] == [
        {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file_1"]}},
        {"type": "file_search", "vector_store_ids": ["vs_1"], "max_num_results": 5},
    ]
    assert body["include"] == ["code_interpreter_call.outputs", "file_search_call.results"]


@pytest.mark.parametrize(("window", "streamed"), [("soonest", True), ("2h", False), ("8h", False)])
def test_a_step_with_a_window_is_not_streamed(window: str, streamed: bool) -> None:
    """Expected: looked at instead, also where all steps are to be streamed; OpenAI refuses a window with a stream."""
    one = replace(step({"model": "m", "completion_window": window}), stream=True)
    body = json.loads(sent(one).body)
    assert body.get("stream", False) is streamed
    assert set(body["background_options"]) == set(BackgroundOptions.__annotations__)
    assert body["background_options"]["completion_window"] == window


def test_the_steps_of_a_run_continue_each_other() -> None:
    """Expected: one continuation id for all steps and attempts of a run, another for the next run."""
    first = step({"model": "m", "completion_window": "2h"})
    steps = [
        first,
        replace(first, number=1, answers=ANSWERS),
        replace(first, attempt=2),
        replace(first, run_id="other"),
    ]
    ids = [json.loads(sent(one).body)["background_options"]["continuation_id"] for one in steps]
    assert ids == [first.run_id] * 3 + ["other"]


def test_an_assistant_without_hosted_tools_asks_for_none() -> None:
    """Neither a tool of the provider's own nor its outputs."""
    assert {"tools", "include"} & set(json.loads(sent(STEPS["text"]).body)) == set()


def test_outputs_go_before_the_message() -> None:
    """All open calls are answered in one request, in order, in text that JSON can carry."""
    items = json.loads(sent(STEPS["outputs before a new message"]).body)["input"]
    assert [item["type"] for item in items] == ["function_call_output", "function_call_output", "message"]
    assert [item.get("output") for item in items[:2]] == [ANSWERS[0].output, "ü?\ufffd"]
    assert items[2]["content"] == [{"type": "input_text", "text": "hello"}]


@pytest.mark.parametrize("config", [{"temperature": float("nan")}, {"instructions": {1, 2}}])
def test_a_request_that_is_not_json(config: dict[str, Any]) -> None:
    """It is refused before anything is sent, for good."""

    async def story() -> int:
        async with scripted(saying(answer(200, EMPTY))) as server, backend_at(server.url) as backend:
            with pytest.raises(ProviderError, match="invalid_request") as caught:
                await backend.create(step(config))
            assert transience(caught.value) == "permanent"
            return len(server.requests)

    assert asyncio.run(story()) == 0


@pytest.mark.parametrize("provider_id", ["../files/file_1", "a?b#c", "ü/\x00"])
def test_an_id_stays_in_its_place(provider_id: str) -> None:
    """No id leads a request to another path or host of the server."""

    async def story() -> list[str]:
        async with scripted(saying(answer(200, EMPTY))) as server, backend_at(server.url) as backend:
            await backend.look(provider_id)
            return [request.path for request in server.requests]

    [path] = asyncio.run(story())
    assert path.count("/") == 3
    assert path.startswith("/v1/responses/")
