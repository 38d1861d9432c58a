"""The file of assistants: what it may hold, and errors that name the line."""

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from openai.types.responses import response_create_params, service_tier
from openai.types.shared import reasoning_effort

from worker.assistants.configuration import AssistantConfig, load
from worker.assistants.windows import WINDOWS
from worker.backends.places import PROTOCOLS
from worker.errors import UsageError

TOOLS = ["calculate", "lookup_table"]
MUST_HOLD = "the file must hold `assistants:` and below it each assistant by its name"


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "assistants.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def complaints(tmp_path: Path, text: str) -> list[str]:
    """Return the error's lines without the folder."""
    with pytest.raises(UsageError) as caught:
        load(write(tmp_path, text), TOOLS, "responses")
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


def test_a_whole_assistant_is_read(tmp_path: Path) -> None:
    """What is stored has what was written and nothing else; a response format is the provider's text.format."""
    text = """
assistants:
  invoices:
    model: gpt-6-luna
    instructions: Be brief.
    tools: [calculate]
    approval: [calculate]
    temperature: 0
    reasoning_effort: none
    response_format: {name: total, schema: {type: object}}
    timeout: 60
"""
    config = load(write(tmp_path, text), TOOLS, "responses")["invoices"]
    assert config.model_dump(mode="json", exclude_none=True) == {
        "model": "gpt-6-luna",
        "instructions": "Be brief.",
        "tools": ["calculate"],
        "approval": ["calculate"],
        "temperature": 0.0,
        "reasoning_effort": "none",
        "response_format": {"type": "json_schema", "name": "total", "schema": {"type": "object"}},
        "timeout": 60.0,
    }


def test_the_shipped_file_is_valid() -> None:
    """assistants.yaml of the repository needs only the shipped tools."""
    root = Path(__file__).parents[2]
    assert "clerk" in load(root / "assistants.yaml", [*TOOLS, "read_document"], "responses")


def test_every_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    """Several mistakes are several lines, in the order of the file."""
    text = """assistants:
  invoices:
    model: gpt-6-luna
    temprature: 1
    temperature: 3
    tools:
      - calculate
      - calclate
    tool_choice: sometimes
  "bad name":
    model: gpt-6-luna
  other:
    instructions: x
    model: 5
"""
    assert complaints(tmp_path, text) == [
        "assistants.yaml:4: assistant 'invoices': unknown key 'temprature'; did you mean 'temperature'?",
        "assistants.yaml:5: assistant 'invoices': temperature: should be less than or equal to 2, not 3",
        "assistants.yaml:8: assistant 'invoices': there is no tool 'calclate'; there are: calculate, lookup_table",
        "assistants.yaml:9: assistant 'invoices': tool_choice: should be 'none', 'auto' or 'required', not 'sometimes'",
        "assistants.yaml:10: the name 'bad name' must be letters, digits, dots, _ and -; at most 100, no sign first",
        "assistants.yaml:14: assistant 'other': model: should be a text, not 5",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "assistants.yaml: the file is empty; it begins with `assistants:`"),
        (
            "assistants: {}",
            "assistants.yaml:1: the file must hold `assistants:` and below it each assistant by its name",
        ),
        ("- a", "assistants.yaml:1: the file must hold `assistants:` and below it each assistant by its name"),
        ("assistants: {a: {model: m}}\nx: 1", "assistants.yaml:1: unknown key 'x' beside `assistants`"),
        ("assistants:\n  a: {}", "assistants.yaml:2: assistant 'a': the key 'model' is missing"),
        (
            "assistants:\n  a:\n  b: {model: m}",
            "assistants.yaml:2: assistant 'a': below the name stand its settings, such as `model: …`",
        ),
        ("assistants:\n  a: {model: m}\n  a: {model: n}", "assistants.yaml:3: 'a' stands twice; first in line 2"),
        (
            "assistants:\n  a:\n    model: m\n    model: n",
            "assistants.yaml:4: assistant 'a': 'model' stands twice; first in line 3",
        ),
        (
            "assistants: {a: {model: m, tools: [calculate, calculate]}}",
            "assistants.yaml:1: assistant 'a': the tool 'calculate' is named twice",
        ),
        (
            "assistants:\n  a:\n    model: m\n    tools: [calculate]\n    approval: [lookup_table]",
            "assistants.yaml:5: assistant 'a': it is not given the tool 'lookup_table'; there are: calculate",
        ),
        (
            "assistants: {a: {model: m, tools: [calculate], approval: [calculate, calculate]}}",
            "assistants.yaml:1: assistant 'a': the tool 'calculate' is named twice",
        ),
        (
            "assistants:\n  a: [",
            "assistants.yaml:2: this is not YAML: expected the node content, but found '<stream end>'",
        ),
        (
            "assistants:\n  a:\n    model: m\n    backend: chats",
            (
                "assistants.yaml:4: assistant 'a': backend.protocol: there is no backend 'chats'; "
                "there are: responses, responses-stateless, chat, assistants"
            ),
        ),
        (
            "assistants:\n  a:\n    model: m\n    backend: {protocol: chat, base_url: 'http://u:p@host/v1'}",
            (
                "assistants.yaml:4: assistant 'a': backend.base_url: an address without a user and without a query: "
                "it is shown; the key goes into api_key"
            ),
        ),
        (
            "assistants:\n  a:\n    model: m\n    backend: {protocol: chat, api_key: DATABASE_URL}",
            (
                "assistants.yaml:4: assistant 'a': backend.api_key: OPENAI_API_KEY, or a variable that begins with "
                "RUNWRIGHT_KEY_"
            ),
        ),
        (
            "assistants:\n  a:\n    model: m\n    truncation: {last_messages: 3}",
            "assistants.yaml:4: assistant 'a': truncation: the backend 'responses' takes auto or disabled",
        ),
        (
            "assistants:\n  a:\n    model: m\n    backend: assistants\n    max_output_tokens: 255",
            "assistants.yaml:5: assistant 'a': max_output_tokens: the backend 'assistants' takes 256 at least, not 255",
        ),
        (
            "assistants:\n  a:\n    model: m\n    backend: assistants\n    service_tier: flex",
            (
                "assistants.yaml:5: assistant 'a': the backend 'assistants' has no 'service_tier'; it has: "
                "additional_instructions, hosted_tools, instructions, max_output_tokens, max_prompt_tokens, model, "
                "parallel_tool_calls, reasoning_effort, response_format, temperature, tool_choice, top_p, truncation"
            ),
        ),
        (
            "assistants:\n  a:\n    model: m\n    backend: chat\n    completion_window: 2h",
            (
                "assistants.yaml:5: assistant 'a': the backend 'chat' has no 'completion_window'; it has: "
                "context_window, instructions, max_output_tokens, model, parallel_tool_calls, reasoning_effort, "
                "response_format, service_tier, temperature, tool_choice, top_p, truncation"
            ),
        ),
        (
            "assistants:\n  a:\n    model: m\n    completion_window: 24h",
            "assistants.yaml:4: assistant 'a': completion_window: should be 'soonest', '2h' or '8h', not '24h'",
        ),
        ("a: &a [*a]", "assistants.yaml:1: this part of the file refers to itself"),
    ],
)
def test_each_mistake_is_one_line(tmp_path: Path, text: str, expected: str) -> None:
    """The line says where and what; no traceback."""
    assert complaints(tmp_path, text) == [expected]


@pytest.mark.parametrize("path", ["a b", "a\\tb", "größe", "v1#x", "x" * 300])
def test_an_address_is_one_word(tmp_path: Path, path: str) -> None:
    """Expected: refused where it is written; it is kept beside each conversation, with spaces around it."""
    backend = f'{{protocol: chat, base_url: "http://host/{path}"}}'
    (line,) = complaints(tmp_path, f"assistants:\n  a: {{model: m, backend: {backend}}}")
    assert line.startswith("assistants.yaml:2: assistant 'a': backend.base_url: at most 300 letters")


HOSTED = "assistants:\n  a:\n    model: m\n    backend: {}\n    hosted_tools:\n      {}\n"


@pytest.mark.parametrize(
    ("backend", "said", "expected"),
    [
        (
            "responses",
            "web_search: {}",
            "6: assistant 'a': unknown key 'hosted_tools.web_search'; did you mean 'file_search'?",
        ),
        (
            "responses",
            "- code_interpreter",
            "5: assistant 'a': hosted_tools: each by its name with its settings, such as `code_interpreter: {}`",
        ),
        (
            "responses",
            "file_search:",
            "6: assistant 'a': the key 'hosted_tools.file_search.vector_store_ids' is missing",
        ),
        (
            "responses",
            "file_search: {vector_store_ids: []}",
            "6: assistant 'a': hosted_tools.file_search.vector_store_ids: a vector store to search in; there is none",
        ),
        (
            "responses",
            "file_search: {vector_store_ids: [vs_1], max_num_results: 51}",
            "6: assistant 'a': hosted_tools.file_search.max_num_results: should be less than or equal to 50, not 51",
        ),
        (
            "responses",
            "code_interpreter: {fileids: [file_1]}",
            "6: assistant 'a': unknown key 'hosted_tools.code_interpreter.fileids'; did you mean 'file_ids'?",
        ),
        (
            "responses",
            "code_interpreter: [file_1]",
            "6: assistant 'a': hosted_tools.code_interpreter: its settings by name, or nothing",
        ),
        (
            "assistants",
            "file_search: {vector_store_ids: [vs_1, vs_2]}",
            "6: assistant 'a': hosted_tools.file_search.vector_store_ids: the backend 'assistants' takes 1 at most",
        ),
        (
            "assistants",
            f"code_interpreter: {{file_ids: [{', '.join(['file_1'] * 21)}]}}",
            "6: assistant 'a': hosted_tools.code_interpreter.file_ids: the backend 'assistants' takes 20 at most",
        ),
    ],
)
def test_what_hosted_tools_cannot_be(tmp_path: Path, backend: str, said: str, expected: str) -> None:
    """Expected: one line that names the place, the reason and what there is."""
    assert complaints(tmp_path, HOSTED.format(backend, said)) == [f"assistants.yaml:{expected}"]


@pytest.mark.parametrize("backend", sorted(PROTOCOLS))
def test_hosted_tools_are_for_servers_that_have_them(tmp_path: Path, backend: str) -> None:
    """Expected: kept as written where the protocol takes them, refused with their line where it does not."""
    text = HOSTED.format(
        backend, "code_interpreter:\n      file_search: {vector_store_ids: [vs_1], max_num_results: 5}"
    )
    if backend in ("responses", "assistants"):
        config = load(write(tmp_path, text), TOOLS, "responses")["a"].model_dump(mode="json", exclude_none=True)
        search = {"vector_store_ids": ["vs_1"], "max_num_results": 5}
        assert config["hosted_tools"] == {"code_interpreter": {"file_ids": []}, "file_search": search}
    else:
        (line,) = complaints(tmp_path, text)
        assert line.startswith(f"assistants.yaml:5: assistant 'a': the backend {backend!r} has no 'hosted_tools'")


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ("stream: true", "stream: a step with completion_window 8h cannot be streamed; leave one of the two out"),
        (
            "service_tier: flex",
            "service_tier: completion_window 8h goes with auto or default, not 'flex'; leave one of the two out",
        ),
        (
            "timeout: 3600",
            (
                "timeout: 3600 s are less than the completion_window of 8h; make it 28800 s at least, or "
                "leave one of the two out"
            ),
        ),
        (
            "step_timeout: 7200.5",
            (
                "step_timeout: 7200.5 s are less than the completion_window of 8h; make it 28800 s at least, or "
                "leave one of the two out"
            ),
        ),
    ],
)
def test_what_does_not_go_with_a_window(tmp_path: Path, beside: str, expected: str) -> None:
    """Expected: the line of the key beside it, what is wrong and what to do; alone the key is right."""
    text = f"assistants:\n  a:\n    model: m\n    completion_window: 8h\n    {beside}\n"
    assert complaints(tmp_path, text) == [f"assistants.yaml:5: assistant 'a': {expected}"]
    assert load(write(tmp_path, text.replace("completion_window: 8h", "")), TOOLS, "responses")


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    """A tag that would run code is refused as YAML we do not know."""
    (line,) = complaints(tmp_path, "assistants: !!python/object/apply:os.getcwd []")
    assert "this is not YAML: could not determine a constructor" in line


def test_no_file_and_no_text(tmp_path: Path) -> None:
    """A file that is not there or is not text is one line too."""
    with pytest.raises(UsageError, match=r"nowhere\.yaml: No such file or directory"):
        load(tmp_path / "nowhere.yaml", TOOLS, "responses")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UsageError, match="not a text file in UTF-8"):
        load(binary, TOOLS, "responses")


def test_a_merge_key_overrides_without_a_complaint(tmp_path: Path) -> None:
    """What a merge brings may be written again; its own mistake is told at the own line."""
    text = "assistants:\n  a: &base {model: m, max_steps: 3}\n  b:\n    <<: *base\n    max_steps: 4\n"
    assert load(write(tmp_path, text), TOOLS, "responses")["b"].max_steps == 4
    (line,) = complaints(tmp_path, text.replace("max_steps: 4", "max_steps: 0"))
    assert line.startswith("assistants.yaml:5: assistant 'b': max_steps:")


def test_the_words_are_the_sdks() -> None:
    """The accepted words of each model setting are those that the installed SDK has."""
    sdk = get_type_hints(response_create_params.ResponseCreateParamsBase)
    fields = AssistantConfig.model_fields

    def words(hint: object) -> set[object]:
        found: set[object] = set()
        for part in get_args(hint):
            found |= {part} if isinstance(part, str) else words(part)
        return found

    assert set(PROTOCOLS["responses"].truncations) == words(sdk["truncation"])
    assert words(fields["service_tier"].annotation) == words(service_tier.ServiceTier)
    window = get_type_hints(response_create_params.BackgroundOptions)["completion_window"]
    assert words(fields["completion_window"].annotation) == words(window) == {"soonest", *WINDOWS}
    assert words(fields["reasoning_effort"].annotation) == words(reasoning_effort.ReasoningEffort)
    assert words(fields["tool_choice"].annotation) == {"none", "auto", "required"}
