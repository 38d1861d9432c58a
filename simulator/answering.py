"""The final text: extracted facts and quoted tool outputs."""

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any

from simulator import reading, sums
from simulator.arguments import Ask, fill
from simulator.planning import Planned, clauses, is_error, planned
from simulator.prompt import LONG, Made, Prompt, long_text

_SUMMARY = re.compile(r"\b(?:summar\w+|overview|gist|describe|tl;?dr|what is (?:this|it) about)\b", re.IGNORECASE)
_COUNT = re.compile(r"\b(one|two|three|four|five|\d)\s+(?:short\s+)?(?:sentence|bullet|point|line)", re.IGNORECASE)
_COUNTS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
_VERBATIM = re.compile(
    r"\b(?:reply|answer|respond|say)\s+(?:(?:exactly|only|just|with)\s*){0,2}:?\s*[\"“'](.+?)[\"”']"
    r"|\b(?:reply|answer|respond|say) exactly:\s*(.+)",
    re.IGNORECASE,
)
_TELLING_KEY = re.compile(
    r"supplier|customer|vendor|from|date|number|no\b|total|amount|vat|due|subject|status", re.IGNORECASE
)
_LEAD = re.compile(r"^(?:please\s+)?\w+(?:\s+(?:up|out))?\s+(?:(?:its|the|their|this|an?)\s+)?", re.IGNORECASE)
_KEY_FACTS = 6


def answer(prompt: Prompt) -> str:
    """Return the answer to everything that the request asks for."""
    if prompt.format.get("type") in ("json_schema", "json_object"):
        return _as_json(prompt)
    return _in_words(prompt)


def _as_json(prompt: Prompt) -> str:
    schema = prompt.format.get("schema")
    if not schema:
        return json.dumps({"answer": _in_words(prompt)}, ensure_ascii=False)
    known = "\n".join([prompt.document, *(call.output for call in prompt.made)])
    found = fill(schema, Ask(prompt.request, prompt.request, known), force=True)
    return json.dumps(found, ensure_ascii=False)


def _in_words(prompt: Prompt) -> str:
    plan = {(one.name, _sorted(one.arguments)): one for one in planned(prompt)}
    verbatim = _VERBATIM.search(prompt.request)
    if verbatim:
        return (verbatim[1] or verbatim[2]).strip()
    asked = clauses(prompt.request, prompt.tools)
    asked = asked or [one for one in clauses(prompt.instructions, prompt.tools) if reading.is_request(one)]
    parts = [_said(clause, prompt) for clause in asked if not _is_served(clause, plan)]
    parts += [_reported(call, plan, prompt) for call in _telling_calls(prompt.made)]
    spoken = list(dict.fromkeys(part for part in parts if part))
    return " ".join(spoken) or _what_there_is(prompt)


def _telling_calls(made: list[Made]) -> list[Made]:
    """Leave out what was read as a document, and errors that a later call made good."""
    good = {call.name for call in made if not is_error(call.output)}
    return [call for call in made if call.name not in good or not (is_error(call.output) or long_text(call.output))]


def _is_served(clause: str, plan: dict[tuple[str, str], Planned]) -> bool:
    return any(one.clause == clause for one in plan.values())


def _said(clause: str, prompt: Prompt) -> str | None:
    """Answer one part of the request from the text alone."""
    known = prompt.document or prompt.earlier or "\n".join(call.output for call in prompt.made)
    if _SUMMARY.search(clause):
        return summary(known, clause)
    wanted = reading.words(clause)
    facts = [(len(reading.words(key) & wanted), f"{key}: {value}.") for key, value in reading.key_lines(known)]
    best = max((points for points, _ in facts), default=0)
    if best and reading.words(clause):
        return next(fact for points, fact in facts if points == best)
    told = [one for one in reading.most_telling(known, clause, 1) if reading.words(one) & wanted]
    return _sentence(told[0]) if told else None


def summary(text: str, clause: str) -> str | None:
    """Return the columns of a table, the key facts of a form, or the most telling sentences of prose."""
    columns = reading.columns(text)
    if columns:
        return _sentence(f"A table of {len(text.strip().splitlines()) - 1} rows with the columns {', '.join(columns)}")
    asked = _COUNT.search(clause)
    count = (_COUNTS.get(asked[1].lower()) or int(asked[1])) if asked else 2
    told = reading.most_telling(text, clause, count)
    facts = [(key, value) for key, value in reading.key_lines(text) if len(value) <= 80]
    if len(facts) >= 3 and len(facts) >= len(reading.sentences(text)):
        shown = ", ".join(f"{_small(key)} {value.rstrip('.')}" for key, value in _chosen(facts))
        return _sentence(f"{reading.title(text) or 'The document'}: {shown}")
    return " ".join(map(_sentence, told)) or None


def _chosen(facts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Prefer who, when and how much, in the order of the document."""
    preferred = [fact for fact in facts if _TELLING_KEY.search(fact[0])]
    kept = (preferred if len(preferred) >= 3 else facts)[:_KEY_FACTS]
    return [fact for fact in facts if fact in kept]


def _reported(call: Made, plan: dict[tuple[str, str], Planned], prompt: Prompt) -> str:
    """Quote what a function said, under the words in which it was asked for."""
    origin = plan.get((call.name, _sorted(call.arguments)))
    label = _LEAD.sub("", origin.clause).rstrip(".?! ") if origin and "?" not in origin.clause else call.name
    if is_error(call.output):
        return _sentence(f"{call.name} could not help: {_flat(_parsed(call.output))}")
    figure, formula = _figure(call), _formula(call)
    if figure is None or formula is None:
        return _sentence(f"{_large(label)}: {_flat(_parsed(call.output))}")
    if formula in label or label == call.name:
        return _sentence(f"{formula} = {figure}")
    return _sentence(f"{_large(label)}: {_money(figure, label, prompt.document)} ({formula} = {figure})")


def _figure(call: Made) -> Decimal | None:
    """Return the result of a calculation; None for every other output."""
    parsed = _parsed(call.output)
    found = parsed.get("result") if isinstance(parsed, dict) else parsed
    try:
        return Decimal(str(found)) if not isinstance(found, bool) else None
    except InvalidOperation:
        return None


def _formula(call: Made) -> str | None:
    arguments = _parsed(call.arguments)
    texts = [value for value in arguments.values() if isinstance(value, str)] if isinstance(arguments, dict) else []
    return next((text for text in texts if re.fullmatch(r"[\d\s.,+\-*/()%]+", text)), None)


def _money(figure: Decimal, label: str, document: str) -> str:
    unit = sums.currency(document)
    if unit and re.search(r"\b(?:total|sum|vat|tax|net|gross|price|amount|cost)\b", label, re.IGNORECASE):
        return f"{figure:,.2f} {unit}"
    return f"{figure.normalize():f}"


def _what_there_is(prompt: Prompt) -> str:
    known = prompt.document or "\n".join(call.output for call in prompt.made) or prompt.request
    return summary(known, prompt.request) or _sentence(" ".join(known.split())[:LONG] or "There was nothing to read")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _sorted(arguments: str) -> str:
    return json.dumps(_parsed(arguments), sort_keys=True)


def _flat(value: Any) -> str:
    """Write a JSON value in one line of plain words."""
    if isinstance(value, dict):
        rows = [one for one in value.values() if isinstance(one, list) and one and isinstance(one[0], dict)]
        if rows:
            return _flat(rows[0])
        telling = [f"{key} {_flat(one)}" for key, one in value.items() if one not in ([], {}, "", None, 0)]
        return ", ".join(telling) or "nothing found"
    if isinstance(value, list):
        return "; ".join(map(_flat, value))
    return " ".join(str(value).split())


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."


def _small(text: str) -> str:
    """Begin a key with a small letter, unless it is a name or an abbreviation."""
    return text[:1].lower() + text[1:] if text[1:].islower() else text


def _large(text: str) -> str:
    return text[:1].upper() + text[1:]
