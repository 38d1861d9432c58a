"""What is read of the provider's answers, checked; whatever else they hold is left alone."""

import json
import re
from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
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
# NUL and surrogates stand in JSON only as escapes like these; a pair of surrogates is well, and cleaned for nothing, as
# are texts that only look like a number which is none.
_UNCLEAN = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])|NaN|Infinity|\d[eE]\+?\d{3}")


class Named(BaseModel):
    """Anything that the provider made and that is known by its id."""

    id: Ident


class Item(BaseModel):
    """One item of a response's output, of a kind that nothing more is read of."""

    id: Annotated[Ident | None, Lenient] = None


class Part(BaseModel):
    """One part of a message."""

    type: str
    text: str | None = None
    refusal: str | None = None


class Message(Item):
    """What the model said."""

    content: Annotated[list[Part], NullIsEmpty] = []


class Call(Item):
    """A function the model asks for; `arguments` is JSON text, not yet checked."""

    call_id: Ident
    name: str
    arguments: str


class Fault(BaseModel):
    """Why a response failed."""

    code: str
    message: str = ""


class Tokens(BaseModel):
    """What a response used."""

    input_tokens: Count
    output_tokens: Count


class Details(BaseModel):
    """Why a response was cut short."""

    reason: str


def _kind(item: Any) -> str:
    kind = item.get("type") if isinstance(item, dict) else None
    return kind if kind in ("message", "function_call") else "other"


_AnyItem = Annotated[
    Annotated[Message, Tag("message")] | Annotated[Call, Tag("function_call")] | Annotated[Item, Tag("other")],
    Discriminator(_kind),
]


class ResponseBody(Named):
    """A response as far as a run needs it."""

    status: str
    output: Annotated[list[_AnyItem], NullIsEmpty] = []
    error: Annotated[Fault | None, Lenient] = None
    usage: Annotated[Tokens | None, Lenient] = None
    incomplete_details: Annotated[Details | None, Lenient] = None
    model: Annotated[str | None, Lenient] = None
    completed_at: Annotated[float | None, Lenient] = None

    @property
    def calls(self) -> list[Call]:
        """Return the functions asked for, in order."""
        return [item for item in self.output if isinstance(item, Call)]

    @property
    def text(self) -> str:
        """Return all the text that the model said; where it only refused, its words for that."""
        parts = [part for item in self.output if isinstance(item, Message) for part in item.content]
        said = "".join(part.text or "" for part in parts if part.type == "output_text")
        return said or "".join(part.refusal or "" for part in parts if part.type == "refusal")


class BegunEvent(BaseModel):
    """An event of a stream that names its response."""

    response: Named


class TextEvent(BaseModel):
    """A piece of what the model says."""

    delta: str


class EndedEvent(BaseModel):
    """The last event of a stream: the whole response."""

    response: ResponseBody


class ItemsBody(BaseModel):
    """A page of a conversation's items, as they are."""

    data: Annotated[list[dict[str, Any]], NullIsEmpty] = []
    has_more: bool = False
    last_id: Annotated[Ident | None, Lenient] = None


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
