"""The model: what it was given in, text or function calls out; a pure function."""

import dataclasses

from simulator.answering import answer
from simulator.faults import Trouble
from simulator.planning import due
from simulator.prompt import Prompt
from simulator.wire import JsonObject


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """What the model does with one prompt; all but text and calls are set by directives alone."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    hosted: tuple[tuple[str, JsonObject], ...] = ()
    failure: tuple[str, str] | None = None
    incomplete: bool = False
    hangs: bool = False
    latency: float | None = None
    queued: float | None = None
    tokens: int | None = None
    troubles: tuple[Trouble, ...] = ()


def reply_to(prompt: Prompt) -> Reply:
    """Return the model's reply: scripted by directives, else thought up from the text."""
    if prompt.script is None:
        return _own_reply(prompt)
    script = prompt.script
    now, calls = script.current(len(prompt.made))
    # Once in a round, before its calls; what the request does not offer no model calls.
    hosted = [one for one in now.hosted if one[0] in prompt.hosted and len(calls) == len(now.calls)]
    if not prompt.parallel:
        calls = calls[:1]
    text = "" if calls else (answer(prompt) if script.say is None else script.say)
    return Reply(
        text=text,
        calls=tuple(calls),
        hosted=tuple(hosted),
        failure=now.failure,
        incomplete=now.incomplete,
        hangs=now.hangs,
        latency=script.latency,
        queued=script.queued,
        tokens=script.tokens,
        troubles=tuple(now.troubles),
    )


def _own_reply(prompt: Prompt) -> Reply:
    calls = tuple((one.name, one.arguments) for one in due(prompt))
    return Reply(calls=calls) if calls else Reply(text=answer(prompt))
