"""What the Assistants backend sends, before OpenAI's published document."""

import json
from typing import Any

import pytest

from tests.assisting import MADE, RUN, asked, doing, page, routes
from tests.conformance.test_responses_requests import ALL, SCHEMA
from tests.recordings import published
from tests.scripted import Request, answer
from tools.registry import Registry
from worker.backends.base import Step
from worker.backends.places import PROTOCOLS
from worker.errors import ProviderError
from worker.response import Answer, Opened

CONFIG = {**{key: ALL[key] for key in ALL if key in PROTOCOLS["assistants"].settings}, "max_output_tokens": 256}
LOADED = Registry.load().tools
ANSWERS = [Answer("call_1", '{"a": 1}', "f", '{"x": 2}'), Answer("call_2", "ü\ud800\x00", "g", "{}")]
PARTS = [
    {"type": "text", "text": "Grüße \U0001f600"},
    {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
    {"type": "image_file", "image_file": {"file_id": "file_1"}},
]
FILE = {"type": "file", "file_id": "file_2", "tools": ["file_search", {"type": "code_interpreter"}]}
STEPS = {
    "text": doing(),
    "every setting": doing(CONFIG, tools=LOADED),
    "last messages": doing({"truncation": {"last_messages": 3}}),
    "parts and a file": doing(input=[*PARTS, FILE]),
    "what was called": doing(text="", answers=ANSWERS, earlier=ANSWERS[:1], attempt=2, number=3),
    "outputs": doing(text="", answers=ANSWERS, previous="thread_1/run_1", number=1),
}


@pytest.fixture(scope="module")
def document() -> Any:
    return published()


def sent(step: Step, table: dict[str, Any] | None = None) -> list[Request]:
    """Return the requests that creating a step makes."""
    submit = {"POST /threads/thread_1/runs/run_1/submit_tool_outputs": answer(200, RUN)}
    created, requests = asked(routes({**submit, **(table or {})}), lambda backend: backend.create(step))
    assert created.id == "thread_1/run_1"
    return requests


def body(requests: list[Request], ending: str) -> Any:
    """Return the body of the one POST to such a path."""
    (found,) = [one for one in requests if one.method == "POST" and one.path.endswith(ending)]
    return json.loads(found.body)


@pytest.mark.parametrize("name", STEPS)
def test_every_request_conforms(name: str, document: Any) -> None:
    """OpenAI's published document accepts each one, all with the header, and knows every property of what is made."""
    requests = sent(STEPS[name])
    for one in requests:
        assert one.headers["openai-beta"] == "assistants=v2"
        path = one.path.removeprefix("/v1").partition("?")[0]
        assert document.find_op(one.method, path)[0], path
        if one.method == "POST":
            assert document.judge_request("POST", path, "application/json", one.body) == []
    kinds = {"/assistants": "CreateAssistantRequest", "/runs": "CreateRunRequest"}
    for one in requests:
        for ending, kind in kinds.items():
            if one.method == "POST" and one.path.endswith(ending):
                assert document.unknown(document.named(kind), json.loads(one.body)) == []


def test_every_setting_for_the_model_reaches_it() -> None:
    """Model, instructions and tools make the assistant; the rest goes with the run, in its words."""
    requests = sent(STEPS["every setting"])
    made, run = body(requests, "/assistants"), body(requests, "/runs")
    assert (made["model"], made["instructions"]) == (CONFIG["model"], CONFIG["instructions"])
    functions = [tool["function"]["name"] for tool in made["tools"] if tool["type"] == "function"]
    assert functions == [tool.name for tool in LOADED]
    hosted = made["tools"][len(functions) :]
    assert hosted == [{"type": "code_interpreter"}, {"type": "file_search", "file_search": {"max_num_results": 5}}]
    reads = {"code_interpreter": {"file_ids": ["file_1"]}, "file_search": {"vector_store_ids": ["vs_1"]}}
    assert made["tool_resources"] == reads
    schema = {key: value for key, value in CONFIG["response_format"].items() if key != "type"}
    renamed = {
        "max_completion_tokens": 256,
        "truncation_strategy": {"type": "auto"},
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
    assert schema["schema"] == SCHEMA
    assert {key: run[key] for key in renamed} == renamed
    others = set(CONFIG) - {
        "model",
        "instructions",
        "hosted_tools",
        "max_output_tokens",
        "truncation",
        "response_format",
    }
    assert {key: run[key] for key in others} == {key: CONFIG[key] for key in others}
    assert len(others) >= 7


@pytest.mark.parametrize("given", [{}, {"hosted_tools": {"code_interpreter": {"file_ids": []}}}])
def test_an_assistant_says_nothing_of_what_it_is_not_given(given: dict[str, Any]) -> None:
    """It is known by its body: one without tools of the server's own stays the one that it was."""
    made = body(sent(doing(given)), "/assistants")
    assert "tool_resources" not in made
    assert made["tools"] == [{"type": name} for name in given.get("hosted_tools", ())]


def test_assistants_with_other_files_are_others() -> None:
    """The digest that one is found by holds its own tools and what they read."""
    ids = [["file_1"], ["file_2"]]
    hosted = [{"code_interpreter": {"file_ids": one}} for one in ids]
    digests = [body(sent(doing({"hosted_tools": one})), "/assistants")["metadata"] for one in (*hosted, hosted[0])]
    assert digests[0] == digests[2] != digests[1]


def test_the_message_goes_with_its_run() -> None:
    """One request holds both, each with whose it is; parts stay as they are, files are attached."""
    run = body(sent(STEPS["parts and a file"]), "/runs")
    assert run["metadata"] == {"run_id": "run-1", "attempt": "1", "step": "0"}
    tools = [{"type": "file_search"}, {"type": "code_interpreter"}]
    message = {"role": "user", "content": PARTS, "attachments": [{"file_id": "file_2", "tools": tools}]}
    assert run["additional_messages"] == [{**message, "metadata": {"run_id": "run-1"}}]


def test_what_was_called_is_told() -> None:
    """Name, arguments and output of all calls of the run, in order, and nothing of its input."""
    (message,) = body(sent(STEPS["what was called"]), "/runs")["additional_messages"]
    text = message["content"][0]["text"]
    told = json.loads(text[text.index("\n\n[") :])
    assert [(one["function"], one["arguments"]) for one in told] == [("f", '{"x": 2}'), ("f", '{"x": 2}'), ("g", "{}")]
    assert told[2]["output"] == "ü?\ufffd"


def test_all_outputs_are_one_request() -> None:
    """Nothing else is asked or sent where a run takes them."""
    (one,) = sent(STEPS["outputs"])
    assert one.path == "/v1/threads/thread_1/runs/run_1/submit_tool_outputs"
    assert [given["tool_call_id"] for given in json.loads(one.body)["tool_outputs"]] == ["call_1", "call_2"]


@pytest.mark.parametrize(
    ("there", "again"),
    [([], True), (["run-0"], True), ([None, "run-1"], False), (["run-1", "run-0"], False), (["run-0", "run-1"], True)],
)
def test_a_later_attempt_sends_the_input_only_where_it_is_not_there(there: list[str | None], again: bool) -> None:
    """Newest first; behind the message of an earlier run there is none of ours."""
    messages = [
        {"id": f"msg_{at}", "role": "user", "content": [], "metadata": {"run_id": run_id} if run_id else {}}
        for at, run_id in enumerate(there)
    ]
    requests = sent(doing(attempt=2), {"GET /threads/thread_1/messages": page(*messages)})
    assert ("additional_messages" in body(requests, "/runs")) is again


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_file", "file_id": "file_1"},
        {"type": "file", "file_id": "file_1"},
        {"type": "file", "file_id": "file_1", "tools": ["web_search"]},
        {"type": "file", "tools": ["file_search"]},
        {"type": "file", "file_id": "file_1", "tools": ["file_search"], "alone": True},
        {},
    ],
)
def test_what_cannot_be_expressed(part: dict[str, Any]) -> None:
    """It is a clear error for good, before anything is sent."""
    parts = [part] if part.pop("alone", False) else [{"type": "text", "text": "read"}, part]
    with pytest.raises(ProviderError, match="cannot send this input") as caught:
        asked(routes({}), lambda backend: backend.create(doing(input=parts)))
    assert (caught.value.code, caught.value.transient, caught.value.unknown) == ("invalid_input", False, False)


@pytest.mark.parametrize("count", [0, 3, 32, 34])
def test_a_thread_begins_with_its_history(count: int, document: Any) -> None:
    """At most 32 messages go with the thread, the others one by one, in order, each with the run that it is of."""
    roles = ["user", "assistant"]
    said = [
        {"role": roles[at % 2], "run_id": f"run-{at // 2}", "content": [{"type": "text", "text": str(at)}]}
        for at in range(count)
    ]
    table = {"POST /threads": answer(200, {"id": "thread_1"}), "POST /threads/thread_1/messages": answer(200, MADE)}
    opened, requests = asked(routes(table), lambda backend: backend.open_conversation("ü" * 600, said))
    assert opened == Opened("thread_1")
    first, *others = [json.loads(one.body) for one in requests]
    assert first["metadata"] == {"thread_id": "ü" * 512}
    messages = [*first.get("messages", []), *others]
    assert len(others) == max(0, count - 32)
    assert [(one["role"], one["content"][0]["text"]) for one in messages] == [
        (roles[at % 2], str(at)) for at in range(count)
    ]
    assert [one["metadata"]["run_id"] for one in messages] == [one["run_id"] for one in said]
    for one in requests:
        assert document.judge_request("POST", one.path.removeprefix("/v1"), "application/json", one.body) == []
