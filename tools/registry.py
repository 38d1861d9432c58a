"""`@tool`, and the tools a worker offers."""

import importlib
import inspect
import pkgutil
import re
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar, overload

from pydantic import TypeAdapter

import tools
from tools.context import ToolContext
from tools.errors import ToolError
from tools.schema import describe, place

Effect = Literal["read", "idempotent", "once"]
Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "__runwright_tool__"
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what OpenAI accepts as a function's name


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that assistants can be given."""

    name: str
    description: str
    parameters: dict[str, Any]
    """The JSON schema of its arguments."""
    function: Callable[..., Any]
    arguments: TypeAdapter[dict[str, Any]]
    """Validates the arguments' JSON into keyword arguments."""
    context: str | None
    """The parameter that takes the ToolContext."""
    is_async: bool
    timeout: float | None
    """Seconds; None means the executor's limit."""
    isolate: bool
    effect: Effect
    approval: bool
    """Whether a person must agree to each call before it runs."""

    def values(self, arguments: str, context: ToolContext) -> dict[str, Any]:
        """Validate the model's JSON into keyword arguments; blank means none, ValidationError what does not fit."""
        values = self.arguments.validate_json(arguments if arguments.strip() else "{}")
        return {**values, self.context: context} if self.context else values


@overload
def tool(function: Function, /) -> Function: ...
@overload
def tool(
    *,
    name: str | None = None,
    timeout: float | None = None,
    isolate: bool = False,
    effect: Effect = "once",
    approval: bool = False,
) -> Callable[[Function], Function]: ...
def tool(
    function: Function | None = None,
    /,
    *,
    name: str | None = None,
    timeout: float | None = None,
    isolate: bool = False,
    effect: Effect = "once",
    approval: bool = False,
) -> Function | Callable[[Function], Function]:
    """Make a function a tool; it stays directly callable.

    `timeout` is in seconds. `isolate` runs it in a child process that can be killed. `effect` says what calling it
    again after a crash does: `read` and `idempotent` calls may be repeated, a `once` call never is. With `approval` a
    person is asked before each call.
    """

    def mark(function: Function) -> Function:
        made = _make(function, name, timeout=timeout, isolate=isolate, effect=effect, approval=approval)
        setattr(function, _MARK, made)
        return function

    return mark if function is None else mark(function)


def tool_of(function: object) -> Tool | None:
    """Return the tool that `@tool` made of a function, if it did."""
    return vars(function).get(_MARK) if inspect.isfunction(function) else None


def _make(
    function: Callable[..., Any],
    name: str | None,
    *,
    timeout: float | None,
    isolate: bool,
    effect: Effect,
    approval: bool,
) -> Tool:
    told = describe(function)
    name = name or function.__name__
    if not _NAME.fullmatch(name):
        raise ToolError(f"tool {place(function)}: the name {name!r} must be 1 to 64 letters, digits, _ or -")
    if timeout is not None and timeout <= 0:
        raise ToolError(f"tool {place(function)}: timeout must be more than 0 seconds, not {timeout}")
    if isolate and "<locals>" in function.__qualname__:
        raise ToolError(f"tool {place(function)}: an isolated tool must stand at the top level of its module")
    return Tool(
        name=name,
        description=told.text,
        parameters=told.parameters,
        function=function,
        arguments=told.arguments,
        context=told.context,
        is_async=inspect.iscoroutinefunction(function),
        timeout=timeout,
        isolate=isolate,
        effect=effect,
        approval=approval,
    )


class Registry:
    """The tools of one process, by name."""

    def __init__(self, offered: Iterable[Tool]) -> None:
        self._tools: dict[str, Tool] = {}
        for one in offered:
            other = self._tools.setdefault(one.name, one)
            if other.function is not one.function:
                raise ToolError(f"two tools are named {one.name!r}: {place(other.function)} and {place(one.function)}")

    @classmethod
    def load(cls, modules: Iterable[str] = ()) -> "Registry":
        """Collect the tools of this package and of the named modules; a module that cannot be had is a ToolError."""
        ours = [f"{tools.__name__}.{module.name}" for module in pkgutil.iter_modules(tools.__path__)]
        loaded = [_import(name) for name in (*ours, *modules)]
        return cls(found for module in loaded for value in vars(module).values() if (found := tool_of(value)))

    @property
    def tools(self) -> tuple[Tool, ...]:
        """Every tool, ordered by name."""
        return tuple(self._tools[name] for name in self.names())

    def names(self) -> list[str]:
        """Return every tool's name, sorted."""
        return sorted(self._tools)

    def get(self, name: str) -> Tool | None:
        """Return the tool of exactly that name."""
        return self._tools.get(name)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ToolError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ToolError(
                f"there is no tool module {name!r}; name it as an import would, such as shop.tools"
            ) from None
        raise ToolError(f"tool module {name!r} needs the module {error.name!r}, which is not installed") from error
    except Exception as error:  # the module is foreign code: whatever it raises, the start ends in one line
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        raise ToolError(f"tool module {name!r} cannot be imported: {' '.join(reason.split())}") from error
