"""How the provider's answers are read: checked as far as a run needs them, whatever else they hold left alone."""

import json
import re
from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    FiniteFloat,
    StringConstraints,
    ValidationError,
    WrapValidator,
)
from pydantic import ValidatorFunctionWrapHandler as Handler

from tools.text import storable

_Body = TypeVar("_Body", bound=BaseModel)
_NOT_JSON = "the provider's answer is not JSON; does OPENAI_BASE_URL lead to its API?"


def _or_none(value: Any, handler: Handler) -> Any:
    try:
        return handler(value)
    except ValidationError:
        return None


# What a run can end without: where it cannot be read it counts as not said, since the answer has been paid for.
Lenient = WrapValidator(_or_none)
NullIsEmpty = BeforeValidator(lambda value: [] if value is None else value)
# It becomes part of a path and a column of 200 characters: visible ASCII, and neither `.` nor `..`.
Ident = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][\x21-\x7e]{0,199}$")]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Moment = Annotated[FiniteFloat | None, Lenient]
"""Seconds since 1970."""
# NUL and surrogates stand in JSON only as escapes like these; a pair of surrogates is well, and cleaned for nothing.
# Nothing else is looked for here: where a pattern does not begin with fixed bytes, the search takes as long as all else
# of a look at a step. Numbers that are none are for the types.
_UNCLEAN = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


def clean(value: Any) -> Any:
    """Replace what no database or no UTF-8 can hold, wherever it stands in a JSON value.

    That is NUL, lone surrogates, and numbers that are none: they are no JSON, although Python reads and writes them.
    """
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {clean(key): clean(item) for key, item in value.items()}
    return [clean(item) for item in value] if isinstance(value, list | tuple) else value


# What goes into a row or the next request as it came.
Kept = AfterValidator(clean)


class Named(BaseModel):
    """Anything that the provider made and that is known by its id."""

    id: Ident


class Fault(BaseModel):
    """Why a response failed."""

    code: str
    message: str = ""


class Details(BaseModel):
    """Why a response was cut short."""

    reason: str


def read(content: bytes, kind: type[_Body]) -> _Body:
    """Return the answer; ValueError says in one line, without quoting it, what is wrong with it."""
    try:
        if _UNCLEAN.search(content):
            return kind.model_validate(clean(json.loads(content)))
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise ValueError(_NOT_JSON) from None
        where = ".".join(map(str, first["loc"])) or "the body"
        raise ValueError(f"the provider's answer cannot be read: {where[:200]}: {first['msg']}") from None
    except (ValueError, RecursionError):
        raise ValueError(_NOT_JSON) from None
