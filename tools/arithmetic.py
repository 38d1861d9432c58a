"""Exact arithmetic on a written expression, without eval."""

import ast
import operator
from collections.abc import Callable
from decimal import Context, Decimal, Inexact
from fractions import Fraction
from typing import Annotated

from tools.registry import tool

_LENGTH = 500
_BITS = 65_536
_EXPONENT = 1_000
_SIGNS = str.maketrans({"×": "*", "÷": "/", "−": "-"})


@tool(effect="read")
def calculate(expression: Annotated[str, "Such as 1240.50 * 1.19 or round(100 / 3, 2)"]) -> str:
    """Calculate exactly with + - * / // % **, parentheses, round (halves away from zero), min, max, abs and sum.

    ValueError says what cannot be calculated.
    """
    if len(expression) > _LENGTH:
        raise ValueError(f"the expression is longer than {_LENGTH} characters")
    source = expression.translate(_SIGNS).strip()
    try:
        return _written(_value(ast.parse(source, mode="eval").body, source))
    except ZeroDivisionError:
        raise ValueError("division by zero") from None
    except ArithmeticError:
        raise ValueError("the result is too large or is not a number") from None
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(
            "this is not an arithmetic expression; write numbers as 1240.5 and a percentage as 0.19"
        ) from None


def _value(node: ast.expr, source: str) -> Fraction:
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return _bounded(_number(node, source))
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            value = _value(operand, source)
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
            return _bounded(_OPERATORS[type(sign)](_value(left, source), _value(right, source)))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _bounded(_FUNCTIONS[name](_arguments(args, source)))
        case ast.Tuple():
            raise ValueError("write numbers without commas: 1240.50, not 1,240.50")
        case ast.BinOp(op=ast.BitXor()):
            raise ValueError("write powers as **")
    raise ValueError(f"{(ast.get_source_segment(source, node) or '')[:50]!r} is not arithmetic that is known here")


def _arguments(nodes: list[ast.expr], source: str) -> list[Fraction]:
    """Evaluate what a function is given, as sum(1, 2) or as sum([1, 2])."""
    lists = [node.elts if isinstance(node, ast.List | ast.Tuple) else [node] for node in nodes]
    values = [_value(member, source) for members in lists for member in members]
    if not values:
        raise ValueError("a function needs a number")
    return values


def _number(node: ast.Constant, source: str) -> Fraction:
    """Take the number as it is written: a float would already have lost digits."""
    if isinstance(node.value, int):
        return Fraction(node.value)
    written = Decimal((ast.get_source_segment(source, node) or "").replace("_", ""))
    if abs(written.adjusted()) > _EXPONENT:
        raise ValueError("a number is too large or too small")
    return Fraction(written)


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > _BITS or value.denominator.bit_length() > _BITS:
        raise ValueError("a number is too large, or has too many digits")
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) > _EXPONENT or bits * abs(exponent) > _BITS:
        raise ValueError("a power is too large")
    if exponent.denominator == 1:
        return Fraction(base ** int(exponent))
    if base < 0:
        raise ValueError("a negative number has no such power")
    return Fraction(Context(prec=28).power(_decimal(base), _decimal(exponent)))


def _round(values: list[Fraction]) -> Fraction:
    value, digits = values if len(values) == 2 else (values[0], Fraction(0))
    if len(values) > 2 or digits.denominator != 1 or abs(digits) > 100:
        raise ValueError("round takes a number and, if wanted, a whole number of digits up to 100")
    scale = Fraction(10) ** int(digits)
    size = Fraction((abs(value) * scale + Fraction(1, 2)) // 1) / scale
    return size if value >= 0 else -size


def _abs(values: list[Fraction]) -> Fraction:
    if len(values) != 1:
        raise ValueError("abs takes one number")
    return abs(values[0])


def _sum(values: list[Fraction]) -> Fraction:
    return sum(values, Fraction(0))


def _decimal(value: Fraction, digits: int = 50) -> Decimal:
    return Context(prec=digits).divide(Decimal(value.numerator), Decimal(value.denominator))


def _written(value: Fraction) -> str:
    """Write a number exactly where 50 digits are enough, else with 20."""
    if value.denominator == 1 and abs(value) < 10**100:
        return str(value.numerator)
    context = Context(prec=50)
    exact = context.divide(Decimal(value.numerator), Decimal(value.denominator))
    number = (exact if not context.flags[Inexact] else _decimal(value, 20)).normalize(Context(prec=50))
    return format(number, "f") if abs(number.adjusted()) < 50 else str(number)


_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda left, right: Fraction(left // right),
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_FUNCTIONS: dict[str, Callable[[list[Fraction]], Fraction]] = {
    "round": _round,
    "abs": _abs,
    "sum": _sum,
    "min": min,
    "max": max,
}
