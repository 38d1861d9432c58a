"""Assistants as configuration: the file, what it may hold, and errors that name the line."""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
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
from worker.assistants import windows
from worker.assistants.hosted import CodeInterpreter, FileSearch, Hosted, HostedTools, excess
from worker.assistants.lines import Loc, Problem, entries, line, read
from worker.backends.places import DEFAULT_KEY, FOR_A_MODEL, KEY_PREFIX, PROTOCOLS, Place
from worker.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
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
    completion_window: Literal["soonest", "2h", "8h"] | None = None
    """How long a step may wait at the provider, which then takes less for it."""
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
_PARTS: Mapping[Loc, type[BaseModel]] = {
    (): AssistantConfig,
    ("response_format",): ResponseFormat,
    ("backend",): BackendConfig,
    ("hosted_tools",): Hosted,
    ("hosted_tools", "code_interpreter"): CodeInterpreter,
    ("hosted_tools", "file_search"): FileSearch,
}


def load(path: Path, tool_names: Collection[str], protocol: str) -> dict[str, AssistantConfig]:
    """Return the assistants of a file, by name; UsageError has one line for each thing that is wrong.

    `protocol` is that of assistants that name no backend.
    """
    root, data, problems = read(path)
    found: dict[str, AssistantConfig] = {}
    for name, raw in entries(path, data).items():
        problems += _name_problems(root, name)
        problems += _tool_problems(root, name, raw, tool_names)
        try:
            found[str(name)] = config = AssistantConfig.model_validate(raw)
        except ValidationError as error:
            problems += _problems(root, name, error)
        else:
            said = config.model_dump(exclude_none=True)
            problems += _lacks(root, name, said, protocol)
            problems += _conflicts(root, name, said)
    if problems:
        ordered = sorted(dict.fromkeys(problems), key=lambda problem: problem.line)
        raise UsageError("\n".join(f"{path}:{problem.line}: {problem.text}" for problem in ordered))
    return found


def _name_problems(root: yaml.Node, name: Any) -> Iterator[Problem]:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        text = f"the name {name!r} must be letters, digits, dots, _ and -; at most 100, no sign first"
        yield Problem(line(root, ("assistants", str(name))), text)


def _tool_problems(root: yaml.Node, name: Any, raw: Any, tool_names: Collection[str]) -> Iterator[Problem]:
    tools = _list(raw, "tools")
    for key, there, lack in (
        ("tools", tool_names, "there is no tool"),
        ("approval", tools, "it is not given the tool"),
    ):
        named = _list(raw, key)
        for at, tool in enumerate(named):
            loc: Loc = ("assistants", str(name), key, at)
            if isinstance(tool, str) and tool not in there:
                known = ", ".join(sorted(map(str, there))) or "none"
                yield Problem.at(root, loc, f"{lack} {tool!r}; there are: {known}")
            elif tool in named[:at]:
                yield Problem.at(root, loc, f"the tool {tool!r} is named twice")


def _lacks(root: yaml.Node, name: Any, config: Mapping[str, Any], protocol: str) -> Iterator[Problem]:
    """Find what the assistant's backend does not take."""
    protocol = Place.of(config, protocol).protocol
    can = PROTOCOLS[protocol]
    for key in sorted(FOR_A_MODEL & config.keys()):
        loc, said = ("assistants", str(name), key), config[key]
        if key not in can.settings:
            known = ", ".join(sorted(can.settings))
            yield Problem.at(root, loc, f"the backend {protocol!r} has no {key!r}; it has: {known}")
        elif key == "truncation" and _form(said) not in can.truncations:
            known = " or ".join(can.truncations)
            yield Problem.at(root, loc, f"truncation: the backend {protocol!r} takes {known}")
        elif key == "max_output_tokens" and said < can.least_output:
            told = f"max_output_tokens: the backend {protocol!r} takes {can.least_output} at least, not {said}"
            yield Problem.at(root, loc, told)
        elif key == "hosted_tools" and (found := excess(said, can)):
            tool, ids, most = found
            told = f"hosted_tools.{tool}.{ids}: the backend {protocol!r} takes {most} at most"
            yield Problem.at(root, (*loc, tool, ids), told)


def _conflicts(root: yaml.Node, name: Any, config: Mapping[str, Any]) -> Iterator[Problem]:
    """Find keys of which each is right and that do not go together."""
    for key, told in windows.conflicts(config):
        yield Problem.at(root, ("assistants", str(name), key), f"{key}: {told}")


def _form(truncation: Any) -> str:
    """Return which kind of truncation it is."""
    if isinstance(truncation, Mapping):
        return "last_messages"
    return "module:function" if ":" in truncation else str(truncation)


def _list(raw: Any, key: str) -> list[Any]:
    given = raw.get(key) if isinstance(raw, dict) else None
    return given if isinstance(given, list) else []


def _problems(root: yaml.Node, name: Any, error: ValidationError) -> Iterator[Problem]:
    for detail in error.errors(include_url=False):
        loc: Loc = ("assistants", str(name), *detail["loc"])
        yield Problem.at(root, loc, _sentence(detail["type"], detail["loc"], detail))


def _sentence(kind: str, loc: Loc, detail: Mapping[str, Any]) -> str:
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
