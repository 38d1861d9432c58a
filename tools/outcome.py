"""What a tool call came to: the text that the model reads, and a word for our records."""

import asyncio
import json
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import to_json

from tools.registry import Tool
from tools.text import storable

_MESSAGE = 2_000

ErrorType = Literal["unknown_tool", "not_allowed", "bad_arguments", "exception", "timeout"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one tool call."""

    output: str
    """What the model reads: a string as the tool returned it, anything else as JSON."""
    status: Literal["completed", "failed"]
    error: ErrorType | None = None
    detail: str = ""
    """For logs: what happened and where, never the text of arguments or results."""
    began: bool = True
    """Whether the function was entered: a `once` call that began and did not complete is in doubt."""


def evaluate(tool: Tool, values: dict[str, Any], limit: int) -> Outcome:
    """Call a plain tool; whatever it raises becomes the outcome. `limit` is in characters of output."""
    try:
        return _completed(tool.function(**values), limit)
    except BaseException as error:  # noqa: BLE001 in its own thread or process even SystemExit is the tool's, not ours
        return raised(error)


async def evaluate_async(tool: Tool, values: dict[str, Any], limit: int) -> Outcome:
    """Call an async tool; being cancelled from outside is the one thing that passes through."""
    try:
        return _completed(await tool.function(**values), limit)
    except asyncio.CancelledError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 a tool that exits must not end the worker
        return raised(error)


def raised(error: BaseException, *, began: bool = True) -> Outcome:
    """Tell what a tool raised: type and message to the model, type and place to the logs."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    message = "".join(traceback.format_exception_only(error)).strip()
    return failed("exception", message, f"{type(error).__name__}{where}", began=began)


def timed_out(tool: Tool, seconds: float) -> Outcome:
    """Tell that a tool began and did not end in time."""
    return failed("timeout", f"{tool.name} did not finish within {seconds:g} seconds", f"limit of {seconds:g} s")


def never_began(tool: Tool, reason: str) -> Outcome:
    """Tell that the run's deadline came before a tool could begin."""
    return failed("timeout", f"{tool.name} was not started: the run's time is over", reason, began=False)


def refused(name: str, allowed: Iterable[str], *, known: bool) -> Outcome:
    """Tell that there is no such tool; one that exists but was not given reads the same to the model."""
    message = f"There is no tool named {name[:64]!r}. The tools are: {', '.join(sorted(allowed)) or '(none)'}"
    if known:
        return failed("not_allowed", message, "not given to this assistant", shown_as="unknown_tool", began=False)
    return failed("unknown_tool", message, "no such tool", began=False)


def unfitting(error: ValidationError) -> Outcome:
    """Tell which arguments the schema does not accept."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    places = (f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}" for problem in problems)
    kinds = ", ".join(sorted({problem["type"] for problem in problems}))
    return failed("bad_arguments", "; ".join(places), kinds, began=False)


def failed(error: ErrorType, message: str, detail: str, *, shown_as: str = "", began: bool = True) -> Outcome:
    """Make the outcome of a call that gave no result; `shown_as` is the model's word where it is not ours."""
    output = error_output(shown_as or error, message)
    return Outcome(output=output, status="failed", error=error, detail=detail, began=began)


def error_output(kind: str, message: str) -> str:
    """Return what the model reads in place of a result."""
    return json.dumps({"error": {"type": kind, "message": storable(message[:_MESSAGE])}}, ensure_ascii=False)


def _completed(value: object, limit: int) -> Outcome:
    text = value if isinstance(value, str) else to_json(value, inf_nan_mode="strings").decode()
    return Outcome(output=_cut(storable(text), limit), status="completed")


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[cut here: the output had {len(text)} characters, the limit is {limit}]"
