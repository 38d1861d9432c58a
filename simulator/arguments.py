"""Arguments for a function from its JSON schema and the text: taken from what is written, or not at all."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from simulator import reading, sums
from simulator.wire import JsonObject

_QUOTED = re.compile(r"[\"“'‘]([^\"”'’]+)[\"”'’]")
_NAME = re.compile(r"(?<![.!?:] )(?<!^)\b(?:[A-Z0-9][\w&.-]*\w|[A-Z])(?: (?:[A-Z&][\w&.-]*|of|de|und|and(?= [A-Z])))*")
_OBJECT = re.compile(
    r"\b(?:look(?:ing)? up|lookup|find|search(?: for)?|check|fetch|get|retrieve)\s+"
    r"(?:(?:its|the|their|this|that|an?|his|her|our|my)\s+)?(.+?)(?:\s+(?:in|from|on|at|within|using|by)\b|[,.?;]|$)",
    re.IGNORECASE,
)
_COLUMN = re.compile(r"\b(?:column|field)s?\s+[\"'“]?([A-Za-z_]\w*)|\bwhere\s+(?:the\s+)?(\w+)\s+(?:is|=|equals)")
_LISTED_COLUMNS = re.compile(r"columns?\b[^:\[]*[:\[]\s*([^\n.\]}]+)", re.IGNORECASE)
_AFTER_PREPOSITION = re.compile(r"\b(?:in|for|at|to|of|about|from)\s+(?:the\s+)?([A-Z][\w-]*(?: [A-Z][\w-]*)*)")
_FORMATS = {
    "date": re.compile(r"\b\d{4}-\d{2}-\d{2}\b"),
    "email": re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b"),
    "uri": re.compile(r"https?://[^\s)>\"]+"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """The part of the request that a function may serve, and what is known around it."""

    clause: str
    request: str
    document: str
    errors: str = ""
    """What the function answered when it was called wrongly before."""


def fill(schema: JsonObject, ask: Ask, *, force: bool = False) -> JsonObject | None:
    """Return arguments that the schema accepts, or None where the text does not give a required one."""
    defs, required = schema.get("$defs", {}), schema.get("required", [])
    found: JsonObject = {}
    for name, spec in schema.get("properties", {}).items():
        plain, nullable = _plain(spec, defs)
        value = _value(name, plain, ask, force=force)
        if value is not None:
            found[name] = value
        elif name in required:
            if "default" not in spec and not nullable:
                return None
            found[name] = spec.get("default")
    return found


def _plain(spec: JsonObject, defs: JsonObject) -> tuple[JsonObject, bool]:
    """Follow references and take the branch that is not null; say whether null would do."""
    if "$ref" in spec:
        spec = {**defs.get(spec["$ref"].rsplit("/", 1)[-1], {}), "description": spec.get("description", "")}
    branches = spec.get("anyOf") or spec.get("oneOf") or []
    if branches:
        real = [branch for branch in branches if branch.get("type") != "null"]
        plain, _ = _plain({**spec, "anyOf": None, "oneOf": None, **real[0]}, defs) if real else ({"type": "null"}, True)
        return plain, len(real) < len(branches)
    kind = spec.get("type", "string")
    if isinstance(kind, list):
        return {**spec, "type": next(one for one in kind if one != "null")}, "null" in kind
    return {**spec, "$defs": defs}, False


def _value(name: str, spec: JsonObject, ask: Ask, *, force: bool) -> Any:
    if "const" in spec:
        return spec["const"]
    value = (
        _listed(spec["enum"], ask) if "enum" in spec else _KINDS.get(spec.get("type", "string"), _text)(name, spec, ask)
    )
    if value is not None and _fits(value, spec):
        return value
    if not force:
        return None
    return spec["enum"][0] if "enum" in spec else _fallback(spec, ask)


def _fallback(spec: JsonObject, ask: Ask) -> Any:
    if spec.get("type") == "object":
        return fill(spec, ask, force=True)
    plain = {"integer": spec.get("minimum", 0), "number": spec.get("minimum", 0), "boolean": False, "array": []}
    return plain.get(spec.get("type", "string"), ask.clause.strip()[: spec.get("maxLength", 200)])


def _fits(value: Any, spec: JsonObject) -> bool:
    if isinstance(value, str):
        low, high = spec.get("minLength", 0), spec.get("maxLength", len(value))
        return low <= len(value) <= high and ("pattern" not in spec or re.search(spec["pattern"], value) is not None)
    if isinstance(value, int | float):
        return bool(spec.get("minimum", value) <= value <= spec.get("maximum", value))
    return True


def _listed(values: list[Any], ask: Ask) -> Any:
    for text in (ask.clause, ask.request):
        for value in values:
            if re.search(rf"\b{re.escape(str(value))}\b", text, re.IGNORECASE):
                return value
    return None


def _number(name: str, spec: JsonObject, ask: Ask) -> float | int | None:
    word = re.escape(name.replace("_", " "))
    near = re.search(
        rf"{word}\D{{0,12}}(-?\d[\d.,]{0, 40}\d|-?\d)|(-?\d[\d.,]{0, 40}\d|-?\d)\s+{word}", ask.clause, re.IGNORECASE
    )
    found = reading.numbers(near[1] or near[2]) if near else reading.numbers(ask.clause)
    if not found:
        return None
    return int(found[0]) if spec["type"] == "integer" else float(found[0])


def _boolean(name: str, _: JsonObject, ask: Ask) -> bool | None:
    if not reading.words(name) & reading.words(ask.clause):
        return None
    return re.search(r"\b(?:without|no|not|don't)\b", ask.clause, re.IGNORECASE) is None


def _array(name: str, spec: JsonObject, ask: Ask) -> list[Any] | None:
    items = spec.get("items", {})
    if items.get("type") in ("integer", "number"):
        kind = int if items["type"] == "integer" else float
        return [kind(one) for one in reading.numbers(ask.clause)] or None
    if items.get("type") == "object":
        one = fill({**items, "$defs": spec.get("$defs", {})}, ask)
        return [one] if one else None
    found = reading.file_names(ask.clause) if _about(name, spec) & {"document", "table"} else []
    return found or _QUOTED.findall(ask.clause) or None


def _object(_: str, spec: JsonObject, ask: Ask) -> JsonObject | None:
    return fill(spec, ask)


def _text(name: str, spec: JsonObject, ask: Ask) -> str | None:
    if spec.get("format") in _FORMATS:
        found = _FORMATS[spec["format"]].search(f"{ask.clause}\n{ask.document}")
        return found[0] if found else None
    about = _about(name, spec)
    for wanted, finder in _FINDERS:
        if about & wanted:
            return finder(name, ask)
    return _generic(name, ask)


def _about(name: str, spec: JsonObject) -> set[str]:
    """Return what a parameter is about: its name says it, or its description where the name says nothing."""
    own = reading.words(name)
    return own if own - {"name", "id"} else own | reading.words(spec.get("description") or "")


def _document_name(_: str, ask: Ask) -> str | None:
    return next((name for text in (ask.clause, ask.request) for name in _files(text, table=False)), None)


def _table_name(_: str, ask: Ask) -> str | None:
    named = re.search(r"\btable\s+(?:called\s+)?[\"'“]?([A-Za-z_][\w-]*)", ask.clause)
    files = [name for text in (ask.clause, ask.request) for name in _files(text, table=True)]
    return files[0] if files else named and named[1]


def _files(text: str, *, table: bool) -> list[str]:
    return [name for name in reading.file_names(text) if reading.is_table(name) is table]


def _expression(_: str, ask: Ask) -> str | None:
    return sums.expression(ask.clause, ask.document)


def _column(_: str, ask: Ask) -> str | None:
    listed = _LISTED_COLUMNS.search(ask.errors)
    subject = _subject(ask)
    if listed:
        columns = re.findall(r"[A-Za-z_][\w ]*\w|\w", listed[1])
        close = [one for one in columns if subject and reading.words(one) & reading.words(subject)]
        return next(iter([*close, *(one for one in columns if one.lower() == "name"), *columns]), None)
    named = _COLUMN.search(ask.clause)
    return (named[1] or named[2]) if named else subject


def _subject(ask: Ask) -> str | None:
    """Return what kind of thing is looked up: the `supplier` of `its supplier`, of `supplier ACME`."""
    found = _OBJECT.search(ask.clause)
    plain = re.findall(r"\b[a-z][a-z_-]+", re.sub(r"['’]s\b.*", "", found[1])) if found else []
    return plain[0] if plain else None


def _sought(_: str, ask: Ask) -> str | None:
    """Return what is looked up: quoted, named, or what the document says that the subject is."""
    quoted = _QUOTED.search(ask.clause)
    if quoted:
        return quoted[1]
    found = _OBJECT.search(ask.clause)
    phrase = found[1] if found else ask.clause
    named = _NAME.search(f"_ {phrase}")
    if named and not reading.file_names(named[0]):
        return named[0]
    subject = _subject(ask)
    return reading.value_of(ask.document, subject) if subject else None


def _words(_: str, ask: Ask) -> str | None:
    quoted = _QUOTED.search(ask.clause)
    found = _OBJECT.search(ask.clause)
    return quoted[1] if quoted else re.sub(r"^\w+\s+(?:the\s+|an?\s+)?", "", found[1] if found else ask.clause).strip()


def _generic(name: str, ask: Ask) -> str | None:
    spoken = re.escape(name.replace("_", " "))
    said = re.search(
        rf"\b{spoken}\b\s*(?:is|=|:)?\s*[\"'“]?([A-Z0-9][\w-]*(?: [A-Z][\w-]*)*)", ask.clause, re.IGNORECASE
    )
    if said and said[1][0].isupper() | said[1][0].isdigit():
        return said[1]
    quoted, after = _QUOTED.search(ask.clause), _AFTER_PREPOSITION.search(ask.clause)
    if quoted or after:
        return quoted[1] if quoted else after and after[1]
    named = _NAME.search(ask.clause)
    return named[0] if named else reading.value_of(ask.document, name)


_FINDERS: list[tuple[set[str], Callable[[str, Ask], str | None]]] = [
    ({"expression"}, _expression),
    ({"column", "field", "header"}, _column),
    ({"value", "key", "term", "entry", "row", "needle"}, _sought),
    ({"table"}, _table_name),
    ({"document", "filename", "path"}, _document_name),
    ({"lookup", "question", "topic", "message", "prompt", "body"}, _words),
]
_KINDS: dict[str, Callable[[str, JsonObject, Ask], Any]] = {
    "string": _text,
    "integer": _number,
    "number": _number,
    "boolean": _boolean,
    "array": _array,
    "object": _object,
}
