"""A tool's description and JSON schema, from its signature, annotations and docstring; pydantic does the work."""

import inspect
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, NotRequired, get_args, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, with_config
from pydantic_core import PydanticSerializationError, to_jsonable_python
from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from tools.context import ToolContext
from tools.errors import ToolError

_ENTRY = re.compile(r"(?P<indent>\s+)(?P<name>\w+)(?:\s*\([^)]*\))?:\s*(?P<text>.*)")


@dataclass(frozen=True, slots=True)
class Description:
    """What a function's source says about it."""

    text: str
    parameters: dict[str, Any]
    """The JSON schema of its arguments."""
    arguments: TypeAdapter[dict[str, Any]]
    """Validates the arguments' JSON into keyword arguments."""
    context: str | None
    """The parameter that takes the ToolContext."""


def describe(function: Callable[..., Any]) -> Description:
    """Describe `function`; a signature that a model cannot fill is a ToolError that names file and line."""
    if not inspect.isfunction(function):
        raise ToolError(f"@tool belongs on a plain or async function, directly above its def; got {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        _refuse(function, "is a generator; return the whole result instead")
    document = inspect.getdoc(function)
    if not document:
        _refuse(function, "has no docstring; its first paragraph tells the model what the tool does")
    hints = _hints(function)
    offered, context = _split(function, hints)
    adapter, schema = _schema(function, offered, hints)
    _annotate(schema["properties"], offered, hints, _documented(document))
    text = " ".join(document.split("\n\n")[0].split())
    return Description(text=text, parameters=schema, arguments=adapter, context=context)


def place(function: Callable[..., Any]) -> str:
    """Say where a function stands: its name, file and line."""
    code = inspect.unwrap(function).__code__
    return f"{function.__qualname__} ({code.co_filename}:{code.co_firstlineno})"


def _refuse(function: types.FunctionType, reason: str) -> NoReturn:
    raise ToolError(f"tool {place(function)} {reason}")


def _hints(function: types.FunctionType) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError, SyntaxError) as error:
        _refuse(function, f"has an annotation that cannot be resolved: {error}")


def _split(function: types.FunctionType, hints: Mapping[str, Any]) -> tuple[list[inspect.Parameter], str | None]:
    """Part the parameters that the model fills from the one that takes the context."""
    offered: list[inspect.Parameter] = []
    context: str | None = None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            _refuse(function, f"takes {parameter}; every parameter must be a named one")
        if parameter.name not in hints:
            _refuse(function, f"has no annotation for parameter {parameter.name!r}")
        hint = hints[parameter.name]
        if hint is not ToolContext and ToolContext not in get_args(hint):
            offered.append(parameter)
        elif context is None:
            context = parameter.name
        else:
            _refuse(function, "takes more than one ToolContext")
    return offered, context


def _schema(
    function: types.FunctionType, offered: list[inspect.Parameter], hints: Mapping[str, Any]
) -> tuple[TypeAdapter[dict[str, Any]], dict[str, Any]]:
    fields = {p.name: hints[p.name] if p.default is p.empty else NotRequired[hints[p.name]] for p in offered}
    # A TypedDict, not a model: any parameter name is allowed, and an argument left out keeps the function's default.
    make: Any = TypedDict  # mypy knows only those written as a class
    shape = with_config(ConfigDict(extra="forbid"))(make(function.__name__, fields))
    try:
        adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(shape)
        schema = adapter.json_schema()
    except (PydanticUserError, TypeError) as error:
        _refuse(function, f"has a parameter that JSON cannot carry: {str(error).splitlines()[0]}")
    schema.pop("title", None)
    return adapter, schema


def _annotate(
    properties: dict[str, Any],
    offered: list[inspect.Parameter],
    hints: Mapping[str, Any],
    documented: Mapping[str, str],
) -> None:
    """Add to each property what pydantic does not know: plain-text descriptions and defaults."""
    for parameter in offered:
        entry = properties[parameter.name]
        entry.pop("title", None)
        notes = [note for note in getattr(hints[parameter.name], "__metadata__", ()) if isinstance(note, str)]
        if text := " ".join(notes) or documented.get(parameter.name):
            entry.setdefault("description", text)
        if parameter.default is not parameter.empty:
            try:
                entry.setdefault("default", to_jsonable_python(parameter.default))
            except PydanticSerializationError:
                continue  # a default that JSON cannot show still applies


def _documented(document: str) -> dict[str, str]:
    """Read the parameters' texts from a docstring's `Args:` section."""
    found: dict[str, str] = {}
    indent, name = "", ""
    for line in document.partition("\nArgs:\n")[2].splitlines():
        if line.strip() and not line[0].isspace():
            break
        entry = _ENTRY.fullmatch(line)
        if entry and (not indent or entry["indent"] == indent):
            indent, name = entry["indent"], entry["name"]
            found[name] = entry["text"]
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found
