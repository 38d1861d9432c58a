"""Which function serves which part of the request."""

import dataclasses
import json
import re
from collections import Counter

from simulator import reading, sums
from simulator.arguments import Ask, fill
from simulator.prompt import Prompt
from simulator.wire import JsonObject

ENOUGH = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Planned:
    """A function call that a part of the request asks for."""

    clause: str
    name: str
    arguments: str


def clauses(text: str, tools: list[JsonObject]) -> list[str]:
    """Split a request into the single things that it asks for."""
    own = [re.split(r"[_\W]", tool["name"])[0] for tool in tools]
    verbs = "|".join([reading.VERBS, *map(re.escape, own)])
    cut = rf"(?<=[.!?])\s+|[;\n]+|,?\s+(?:and\s+)?then\s+|(?:,\s*(?:and\s+)?|\s+and\s+)(?=(?:{verbs})\b)"
    return [part.strip() for part in re.split(cut, text, flags=re.IGNORECASE) if part and part.strip()]


def planned(prompt: Prompt) -> list[Planned]:
    """Return every call that request and instructions ask for, as far as its arguments are known by now."""
    wanted = [_served(clause, prompt.request, prompt) for clause in clauses(prompt.request, prompt.tools)]
    wanted += [_served(clause, clause, prompt) for clause in clauses(prompt.instructions, prompt.tools)]
    unique = {(one.name, one.arguments): one for one in reversed(wanted) if one}
    return list(unique.values())[::-1]


def due(prompt: Prompt) -> list[Planned]:
    """Return the calls to make now: those asked for and not made, at most one for each asking and one per error."""
    made = {(call.name, _canonical(call.arguments)) for call in prompt.made}
    everything = planned(prompt)
    room = Counter(one.name for one in everything)
    room.update(call.name for call in prompt.made if is_error(call.output))
    room.subtract(call.name for call in prompt.made)
    chosen = []
    for one in everything:
        if (one.name, _canonical(one.arguments)) not in made and room[one.name] > 0:
            room[one.name] -= 1
            chosen.append(one)
    if not chosen and prompt.must_call and prompt.tools:
        chosen = [_forced(prompt)]
    return chosen if prompt.parallel else chosen[:1]


def is_error(output: str) -> bool:
    """Say whether a tool's output reports an error."""
    return output.lstrip().lower().startswith(("error", '{"error', "{'error"))


def _canonical(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except ValueError:
        return arguments


def _served(clause: str, around: str, prompt: Prompt) -> Planned | None:
    best: tuple[int, Planned] | None = None
    for tool in prompt.tools:
        errors = "\n".join(call.output for call in prompt.made if call.name == tool["name"] and is_error(call.output))
        found = fill(tool.get("parameters") or {}, Ask(clause, around, prompt.document or prompt.earlier, errors))
        points = _score(clause, tool) + 2 * bool(found)
        if found is not None and points >= ENOUGH and (best is None or points > best[0]):
            best = points, Planned(clause, tool["name"], json.dumps(found, ensure_ascii=False))
    return best[1] if best else None


def _score(clause: str, tool: JsonObject) -> int:
    """Return how far a clause speaks of what a tool does: its name counts double, and at least once."""
    spoken, name = reading.words(clause), reading.words(tool["name"])
    if sums.expression(clause, ""):
        spoken.add("calculate")
    shared = spoken & name
    named = re.search(rf"\b{re.escape(tool['name'])}\b", clause) is not None
    if not shared and not named:
        return 0
    described = spoken & reading.words(tool.get("description") or "") - name
    return 2 * len(shared) + min(2, len(described)) + 2 * named


def _forced(prompt: Prompt) -> Planned:
    tool = max(prompt.tools, key=lambda one: _score(prompt.request, one))
    ask = Ask(prompt.request, prompt.request, prompt.document)
    found = fill(tool.get("parameters") or {}, ask, force=True)
    return Planned(prompt.request, tool["name"], json.dumps(found or {}, ensure_ascii=False))
