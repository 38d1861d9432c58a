"""What a function's signature and docstring become."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from tools.context import ToolContext
from tools.errors import ToolError
from tools.schema import describe


class Address(BaseModel):
    """Where someone lives."""

    street: str
    zip: str = ""


@dataclass
class Point:
    x: int
    y: int


def order(
    item: Annotated[str, "What to order"],
    amount: Annotated[int, Field(gt=0, description="How many")],
    context: ToolContext,
    kind: Literal["new", "used"] = "new",
    note: str | None = None,
    *,
    schema: bool = False,
) -> str:
    """Order an item
    from the shop.

    Never twice.

    Args:
        kind (str): Which kind
            of item.
        note: A note: free text.
        item: not used, the annotation wins

    Returns:
        note: not a parameter
    """
    return f"{item} {amount} {context.run_id} {kind} {note} {schema}"


def test_schema_of_a_rich_signature() -> None:
    """Expected: types, limits, defaults, and descriptions from Annotated, Field and Args; no titles, no extras."""
    told = describe(order)

    assert told.text == "Order an item from the shop."
    assert told.context == "context"
    assert told.parameters == {
        "type": "object",
        "additionalProperties": False,
        "required": ["item", "amount"],
        "properties": {
            "item": {"type": "string", "description": "What to order"},
            "amount": {"type": "integer", "exclusiveMinimum": 0, "description": "How many"},
            "kind": {
                "type": "string",
                "enum": ["new", "used"],
                "default": "new",
                "description": "Which kind of item.",
            },
            "note": {
                "anyOf": [{"type": "string"}, {"type": "null"}],
                "default": None,
                "description": "A note: free text.",
            },
            "schema": {"type": "boolean", "default": False},
        },
    }


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, {"type": "integer"}),
        (list[str], {"type": "array", "items": {"type": "string"}}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (date, {"type": "string", "format": "date"}),
        (Point, {"$ref": "#/$defs/Point"}),
        (Address, {"$ref": "#/$defs/Address"}),
        (Any, {}),
    ],
)
def test_schema_of_one_annotation(annotation: object, expected: dict[str, object]) -> None:
    """Expected: every annotation pydantic knows is carried; classes stand under $defs."""

    def function(value: object) -> None:
        """Do it."""

    function.__annotations__["value"] = annotation

    parameters = describe(function).parameters

    assert parameters["properties"]["value"] == expected
    assert ("$defs" in parameters) == ("$ref" in expected)


def test_no_parameters() -> None:
    """Expected: an object without properties, closed to others."""

    def ping() -> str:
        """Answer."""
        return "pong"

    told = describe(ping)

    assert told.parameters == {"type": "object", "properties": {}, "additionalProperties": False}
    assert told.arguments.validate_json("{}") == {}


def test_arguments_left_out_keep_the_functions_default() -> None:
    """Expected: validation returns only what was given, converted to the annotated types."""

    def pay(amount: Decimal, address: Address, on: date = date.max) -> None:
        """Pay."""

    values = describe(pay).arguments.validate_json('{"amount": "1.10", "address": {"street": "Kai 1"}}')

    assert values == {"amount": Decimal("1.10"), "address": Address(street="Kai 1")}


def test_the_context_cannot_be_given_by_the_model() -> None:
    """Expected: an argument named like the context parameter is refused, also where it is optional."""

    def peek(context: ToolContext | None = None) -> None:
        """Peek."""

    told = describe(peek)

    assert told.context == "context"
    with pytest.raises(ValidationError, match="Extra inputs"):
        told.arguments.validate_json('{"context": {}}')


def stars(*values: int) -> None:
    """Add."""


def keywords(**values: int) -> None:
    """Add."""


def positional(value: int, /) -> None:
    """Add."""


def bare(value) -> None:  # type: ignore[no-untyped-def]  # the missing annotation is the case
    """Add."""


def unexplained(value: int) -> None:
    return None


def unresolved(value: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821 the unknown name is the case
    """Add."""


def unfit(value: Callable[[], int]) -> None:
    """Add."""


def two(one: ToolContext, other: ToolContext) -> None:
    """Add."""


def yields() -> Iterator[int]:
    """Add."""
    yield 1


async def yields_later() -> AsyncIterator[int]:
    """Add."""
    yield 1


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (stars, "takes \\*values"),
        (keywords, "takes \\*\\*values"),
        (positional, "every parameter must be a named one"),
        (bare, "no annotation for parameter 'value'"),
        (unexplained, "has no docstring"),
        (unresolved, "cannot be resolved.*Nowhere"),
        (unfit, "JSON cannot carry"),
        (two, "more than one ToolContext"),
        (yields, "is a generator"),
        (yields_later, "is a generator"),
    ],
)
def test_unsupported_functions_are_refused(function: Callable[..., object], reason: str) -> None:
    """Expected: one line that names the function, its file and line, and what is wrong."""
    with pytest.raises(ToolError, match=reason) as caught:
        describe(function)

    line = function.__code__.co_firstlineno
    assert f"tool {function.__name__} ({__file__}:{line})" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_functions_are_tools() -> None:
    """Expected: a class, a method object or a wrapped callable is refused with what was got."""
    with pytest.raises(ToolError, match="belongs on a plain or async function"):
        describe(Point)
