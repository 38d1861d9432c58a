"""Assistants as configuration: the file, what it may hold, and errors that name the line."""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    ValidationError,
)

from worker import urls
from worker.backends.places import DEFAULT_KEY, FOR_A_MODEL, KEY_PREFIX, PROTOCOLS, Place
from worker.errors import UsageError
from worker.hosted import CodeInterpreter, FileSearch, Hosted, HostedTools, excess

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_Loc = tuple[int | str, ...]
_Text = Annotated[str, StringConstraints(min_length=1)]


def _known(protocol: str) -> str:
    if protocol not in PROTOCOLS:
        raise ValueError(f"there is no backend {protocol!r}; there are: {', '.join(PROTOCOLS)}")
    return protocol


def _whole(backend: Any) -> Any:
    return {"protocol": backend} if isinstance(backend, str) else backend


def _key_variable(name: str) -> str:
    if name != DEFAULT_KEY and not re.fullmatch(rf"{KEY_PREFIX}[A-Z0-9_]{{1,80}}", name):
        raise ValueError(f"{DEFAULT_KEY}, or a variable that begins with {KEY_PREFIX}")
    return name


def _truncation(given: Any) -> Any:
    if given is None or given in ("auto", "disabled"):
        return given
    if isinstance(given, str) and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", given):
        return given
    if isinstance(given, dict) and given.keys() == {"last_messages"}:
        count = given["last_messages"]
        if type(count) is int and count > 0:
            return given
    raise ValueError("auto, disabled, last_messages: N, or a function as module:function")


def _without_secret(url: str) -> str:
    if "@" in url or "?" in url:
        raise ValueError("an address without a user and without a query: it is shown; the key goes into api_key")
    if not re.fullmatch(r"[!-~]{1,300}", url) or "#" in url:
        raise ValueError("at most 300 letters, digits and signs of ASCII, no space and no '#' among them")
    return url


class ResponseFormat(BaseModel):
    """A JSON schema that the answer must fit; dumped, it is the provider's `text.format`."""

    model_config = ConfigDict(strict=True, extra="forbid", serialize_by_alias=True)

    type: Literal["json_schema"] = "json_schema"
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class BackendConfig(BaseModel):
    """A server of an assistant's own."""

    model_config = ConfigDict(strict=True, extra="forbid")

    protocol: Annotated[str, AfterValidator(_known)]
    base_url: Annotated[str, AfterValidator(urls.http_url), AfterValidator(_without_secret)] | None = None
    """Not set: OPENAI_BASE_URL."""
    api_key: Annotated[str, AfterValidator(_key_variable)] | None = None
    """The variable that holds its key; not set: OPENAI_API_KEY, or none where it has a base_url."""


class AssistantConfig(BaseModel):
    """One assistant; limits and words of the model settings are those of OpenAI's Responses API."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    model: _Text
    backend: Annotated[BackendConfig, BeforeValidator(_whole)] | None = None
    description: str | None = None
    instructions: str | None = None
    tools: list[str] = []
    hosted_tools: HostedTools | None = None
    """Tools of the provider's own, which it runs itself."""
    approval: list[str] | None = None
    """Those of its tools that a person must agree to, beside those whose author said so."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_output_tokens: Annotated[int, Field(ge=16)] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    parallel_tool_calls: bool | None = None
    tool_choice: Literal["none", "auto", "required"] | None = None
    response_format: ResponseFormat | None = None
    truncation: Annotated[Any, PlainValidator(_truncation)] = None
    """What to leave out of a conversation that is too long; a function of one's own is `module:function`."""
    context_window: PositiveInt | None = None
    """Tokens that the model can read, for `truncation: auto` where the conversation is kept here."""
    additional_instructions: str | None = None
    max_prompt_tokens: Annotated[int, Field(ge=256)] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None
    max_steps: PositiveInt | None = None
    max_attempts: PositiveInt | None = None
    max_active: PositiveInt | None = None
    """At most so many of its runs are in progress at once, over all workers; the others stay queued."""
    timeout: PositiveFloat | None = None
    """Seconds that a run may take."""
    step_timeout: PositiveFloat | None = None
    """Seconds that one model step may take before it is stopped and tried again."""
    stream: bool | None = None
    """Whether its steps are followed on a stream."""


# What stands below these keys.
_PARTS: Mapping[_Loc, type[BaseModel]] = {
    (): AssistantConfig,
    ("response_format",): ResponseFormat,
    ("backend",): BackendConfig,
    ("hosted_tools",): Hosted,
    ("hosted_tools", "code_interpreter"): CodeInterpreter,
    ("hosted_tools", "file_search"): FileSearch,
}


@dataclass(frozen=True, slots=True)
class _Problem:
    line: int
    text: str


def load(path: Path, tool_names: Collection[str], protocol: str) -> dict[str, AssistantConfig]:
    """Return the assistants of a file, by name; UsageError has one line for each thing that is wrong.

    `protocol` is that of assistants that name no backend.
    """
    root, data, problems = _read(path)
    found: dict[str, AssistantConfig] = {}
    for name, raw in _entries(path, data).items():
        problems += _name_problems(root, name)
        problems += _tool_problems(root, name, raw, tool_names)
        try:
            found[str(name)] = config = AssistantConfig.model_validate(raw)
        except ValidationError as error:
            problems += _problems(root, name, error)
        else:
            problems += _lacks(root, name, config.model_dump(exclude_none=True), protocol)
    if problems:
        ordered = sorted(dict.fromkeys(problems), key=lambda problem: problem.line)
        raise UsageError("\n".join(f"{path}:{problem.line}: {problem.text}" for problem in ordered))
    return found


def _read(path: Path) -> tuple[yaml.Node, Any, list[_Problem]]:
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        if root is None:
            raise UsageError(f"{path}: the file is empty; it begins with `assistants:`")
        _refuse_loops(path, root, (), set())
        twice = list(_duplicates(root, (), set()))
        # This folds merge keys (<<) into the nodes: what they bring has a line then, but looks as if it stood twice.
        return root, loader.construct_document(root), twice
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or 'cannot be read'}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: this is not a text file in UTF-8") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UsageError(f"{path}{line}: this is not YAML: {reason}") from None


def _entries(path: Path, data: Any) -> Mapping[Any, Any]:
    entries = data.get("assistants") if isinstance(data, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise UsageError(f"{path}:1: the file must hold `assistants:` and below it each assistant by its name")
    if others := [key for key in data if key != "assistants"]:
        raise UsageError(f"{path}:1: unknown key {others[0]!r} beside `assistants`")
    return entries


def _refuse_loops(path: Path, node: yaml.Node, above: tuple[yaml.Node, ...], whole: set[yaml.Node]) -> None:
    if node in above:
        raise UsageError(f"{path}:{node.start_mark.line + 1}: this part of the file refers to itself")
    if node not in whole:
        for child in _children(node):
            _refuse_loops(path, child, (*above, node), whole)
        whole.add(node)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [value for _, value in node.value]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _duplicates(node: yaml.Node, loc: _Loc, visited: set[yaml.Node]) -> Iterator[_Problem]:
    """Find keys written twice: YAML would silently keep the last one."""
    if not isinstance(node, yaml.MappingNode) or node in visited:
        return
    visited.add(node)
    first: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in first:
            yield _Problem(line, f"{_place(loc)}{name!r} stands twice; first in line {first[name]}")
        first.setdefault(name, line)
        yield from _duplicates(value, (*loc, name), visited)


def _place(loc: _Loc) -> str:
    """Say whose part a place is: locations begin with `assistants` and the name."""
    return f"assistant {loc[1]!r}: " if len(loc) > 1 else ""


def _name_problems(root: yaml.Node, name: Any) -> Iterator[_Problem]:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        text = f"the name {name!r} must be letters, digits, dots, _ and -; at most 100, no sign first"
        yield _Problem(_line(root, ("assistants", str(name))), text)


def _tool_problems(root: yaml.Node, name: Any, raw: Any, tool_names: Collection[str]) -> Iterator[_Problem]:
    tools = _list(raw, "tools")
    for key, there, lack in (
        ("tools", tool_names, "there is no tool"),
        ("approval", tools, "it is not given the tool"),
    ):
        named = _list(raw, key)
        for at, tool in enumerate(named):
            loc: _Loc = ("assistants", str(name), key, at)
            if isinstance(tool, str) and tool not in there:
                known = ", ".join(sorted(map(str, there))) or "none"
                yield _Problem(_line(root, loc), f"{_place(loc)}{lack} {tool!r}; there are: {known}")
            elif tool in named[:at]:
                yield _Problem(_line(root, loc), f"{_place(loc)}the tool {tool!r} is named twice")


def _lacks(root: yaml.Node, name: Any, config: Mapping[str, Any], protocol: str) -> Iterator[_Problem]:
    """Find what the assistant's backend does not take."""
    protocol = Place.of(config, protocol).protocol
    can = PROTOCOLS[protocol]
    for key in sorted(FOR_A_MODEL & config.keys()):
        loc, said = ("assistants", str(name), key), config[key]
        if key not in can.settings:
            known = ", ".join(sorted(can.settings))
            yield _Problem(_line(root, loc), f"{_place(loc)}the backend {protocol!r} has no {key!r}; it has: {known}")
        elif key == "truncation" and _form(said) not in can.truncations:
            known = " or ".join(can.truncations)
            yield _Problem(_line(root, loc), f"{_place(loc)}truncation: the backend {protocol!r} takes {known}")
        elif key == "max_output_tokens" and said < can.least_output:
            told = f"max_output_tokens: the backend {protocol!r} takes {can.least_output} at least, not {said}"
            yield _Problem(_line(root, loc), f"{_place(loc)}{told}")
        elif key == "hosted_tools" and (found := excess(said, can)):
            tool, ids, most = found
            told = f"hosted_tools.{tool}.{ids}: the backend {protocol!r} takes {most} at most"
            yield _Problem(_line(root, (*loc, tool, ids)), f"{_place(loc)}{told}")


def _form(truncation: Any) -> str:
    """Return which kind of truncation it is."""
    if isinstance(truncation, Mapping):
        return "last_messages"
    return "module:function" if ":" in truncation else str(truncation)


def _list(raw: Any, key: str) -> list[Any]:
    given = raw.get(key) if isinstance(raw, dict) else None
    return given if isinstance(given, list) else []


def _problems(root: yaml.Node, name: Any, error: ValidationError) -> Iterator[_Problem]:
    for detail in error.errors(include_url=False):
        loc: _Loc = ("assistants", str(name), *detail["loc"])
        yield _Problem(_line(root, loc), _place(loc) + _sentence(detail["type"], detail["loc"], detail))


def _sentence(kind: str, loc: _Loc, detail: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in loc)
    if kind == "extra_forbidden":
        names = [field.alias or name for name, field in _PARTS[loc[:-1]].model_fields.items()]
        near = difflib.get_close_matches(str(loc[-1]), names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"
        return f"unknown key {key!r}; {hint}"
    if kind == "missing":
        return f"the key {key!r} is missing"
    if not loc:
        return "below the name stand its settings, such as `model: …`"
    wanted = (
        detail["msg"]
        .removeprefix("Value error, ")
        .removeprefix("Input ")
        .replace("valid string", "text")
        .replace("String", "the text")
    )
    given = detail["input"]
    told = kind != "value_error"  # else the sentence is our own, and the value may hold what is not to be shown
    shown = f", not {given!r}" if told and (given is None or isinstance(given, bool | int | float | str)) else ""
    return f"{key}: {wanted}{shown}"


def _line(root: yaml.Node, loc: _Loc) -> int:
    """Return the line of the deepest part of `loc` that is in the file."""
    node, line = root, root.start_mark.line
    for part in loc:
        step = _step(node, part)
        if step is None:
            break
        line, node = step
    return line + 1


def _step(node: yaml.Node, part: int | str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):  # a key that a merge brought stands before the own one
            if str(key.value) == str(part):
                return key.start_mark.line, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        child = node.value[part]
        return child.start_mark.line, child
    return None
