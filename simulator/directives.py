"""The commands that tests write into a message; the package's docstring lists them."""

import dataclasses
import json
import re

from simulator.faults import Trouble
from simulator.wire import JsonObject

_START = re.compile(
    r"\[\[(then|say|call|hosted|latency|queued|tokens|fail|incomplete|hang|drop|late|slow|stuck|cut|stall)\b\s*"
)
_TIMES = re.compile(r"\s+x(\d+)$|^x(\d+)$")


@dataclasses.dataclass(slots=True)
class Round:
    """What one response of the scripted message does."""

    calls: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    hosted: list[tuple[str, JsonObject]] = dataclasses.field(default_factory=list)
    failure: tuple[str, str] | None = None
    incomplete: bool = False
    hangs: bool = False
    troubles: list[Trouble] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class Script:
    """All commands of a message."""

    rounds: list[Round] = dataclasses.field(default_factory=lambda: [Round()])
    say: str | None = None
    latency: float | None = None
    queued: float | None = None
    tokens: int | None = None

    def current(self, made: int) -> tuple[Round, list[tuple[str, str]]]:
        """Return the round that is due after so many calls, and its calls that are still to be made."""
        for one in self.rounds:
            if made < len(one.calls):
                return one, one.calls[made:]
            made -= len(one.calls)
        return self.rounds[-1], []


def script_of(text: str, attempt: int) -> tuple[Script | None, str]:
    """Return the commands of a message for this create of its run, None without any, and the rest of its text."""
    script, rest, at = Script(), "", 0
    for match in _START.finditer(text):
        if match.start() < at:
            continue
        rest += text[at : match.start()]
        argument, at = _argument(text, match.end())
        _obey(script, match[1], argument, attempt)
    return (script if at else None), rest + text[at:]


def _argument(text: str, start: int) -> tuple[str, int]:
    """Return what stands between the command and its ]], and where the text goes on; JSON may itself contain ]]."""
    brace = re.compile(r"[\w.-]+\s*(?=\{)").match(text, start)
    if brace:
        try:
            _, end = json.JSONDecoder().raw_decode(text, brace.end())
        except ValueError:
            end = start
        closing = re.compile(r"\s*\]\]").match(text, end)
        if closing and end > start:
            return text[start:end], closing.end()
    end = text.find("]]", start)
    return (text[start:], len(text)) if end < 0 else (text[start:end].strip(), end + 2)


def _obey(script: Script, command: str, argument: str, attempt: int) -> None:
    due = script.rounds[-1]
    if command == "then":
        script.rounds.append(Round())
    elif command == "call":
        name, _, arguments = argument.partition(" ")
        due.calls.append((name, arguments.strip() or "{}"))
    elif command == "hosted":
        name, _, told = argument.partition(" ")
        due.hosted.append((name, json.loads(told or "{}")))
    elif command == "say":
        script.say = argument
    elif command == "latency":
        script.latency = float(argument)
    elif command == "queued":
        script.queued = float(argument)
    elif command == "tokens":
        script.tokens = int(argument)
    elif command in ("drop", "late", "slow", "stuck", "cut", "stall"):
        due.troubles.append(_trouble(len(script.rounds), command, argument))
    else:
        _end(due, command, argument, attempt)


def _trouble(at: int, command: str, argument: str) -> Trouble:
    """Read `drop before|after`, `late SECONDS`, `cut EVENTS` and their like, with an optional xN, in round `at`."""
    times = _TIMES.search(argument)
    rest = (argument[: times.start()] if times else argument).strip()
    count = int(times[1] or times[2]) if times else 1
    if command == "drop":
        return Trouble("drop after" if rest == "after" else "drop before", at=at, times=count)
    return Trouble(command, float(rest or 0), at, count)


def _end(due: Round, command: str, argument: str, attempt: int) -> None:
    times = _TIMES.search(argument)
    if times and attempt > int(times[1] or times[2]):
        return
    code, _, message = (argument[: times.start()] if times else argument).partition(" ")
    if command == "fail":
        due.failure = (code or "server_error", message or "The simulator was told to fail.")
    elif command == "incomplete":
        due.incomplete = True
    else:
        due.hangs = True
