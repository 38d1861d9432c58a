"""What is left out of a conversation that we keep: oldest first, never half of a call, never the run's own."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import tokens, truncation
from worker.errors import ProviderError
from worker.response import Item
from worker.truncation import fitting, last_turns, truncated

USER = {"role": "user", "content": "u" * 40}
SAID = {"role": "assistant", "content": "a" * 40}


def called(number: int) -> dict[str, Any]:
    call = {"id": f"call_{number}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def output(number: int) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call_{number}", "content": str(number)}


def exchange(number: int, steps: int, *, chat: bool) -> list[Item]:
    """Return a question, so many steps with calls, and an answer, each with its number."""
    if chat:
        calls = [item for step in range(steps) for item in (called(10 * number + step), output(10 * number + step))]
        return [{**USER, "number": number}, *calls, {**SAID, "number": number}]
    found: list[Item] = [{"type": "message", **USER, "number": number}]
    for step in range(steps):
        call_id = f"call_{10 * number + step}"
        found += [
            {"type": "reasoning", "summary": [], "for": call_id},
            {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": call_id, "output": "o"},
        ]
    return [*found, {"type": "message", **SAID, "number": number}]


@st.composite
def conversations(draw: st.DrawFn) -> list[Item]:
    """Draw whole exchanges, then the run's own question, with or without steps that it has taken already."""
    chat = draw(st.booleans())
    steps = draw(st.lists(st.integers(0, 3), max_size=6))
    found = [item for number, count in enumerate(steps) for item in exchange(number, count, chat=chat)]
    return [*found, *exchange(9, draw(st.integers(0, 3)), chat=chat)[:-1]]


def check(whole: Sequence[Item], sent: Sequence[Item]) -> None:
    """Hold what is sent to what must be true of it whatever was left out."""
    assert list(sent) == list(whole[len(whole) - len(sent) :]), "order kept, oldest first"
    made = [call["id"] for item in sent for call in item.get("tool_calls") or ()]
    made += [item["call_id"] for item in sent if item.get("type") == "function_call"]
    answered = [item["tool_call_id"] for item in sent if item.get("role") == "tool"]
    answered += [item["call_id"] for item in sent if item.get("type") == "function_call_output"]
    assert made == answered
    reasons = [item["for"] for item in sent if item.get("type") == "reasoning"]
    assert not reasons or reasons == made
    own = max(at for at, item in enumerate(whole) if item.get("role") == "user")
    assert list(sent[-len(whole[own:]) :]) == list(whole[own:])


@given(conversations(), st.integers(-100, 2000))
def test_fitting_keeps_what_must_be_kept(whole: list[Item], room: int) -> None:
    """Expected: whole exchanges, as many as fit and no fewer, and always the run's own."""
    sent = fitting(whole, room)
    check(whole, sent)
    assert sent[0]["role"] == "user"
    earlier = [at for at in range(len(whole) - len(sent)) if whole[at].get("role") == "user"]
    if earlier:
        assert sum(map(tokens.of, whole[earlier[-1] :])) > room, "one more exchange would have fitted"
    if len([item for item in sent if item.get("role") == "user"]) > 1:
        assert sum(map(tokens.of, sent)) <= room


@given(conversations(), st.integers(1, 30))
def test_the_last_turns_keep_what_must_be_kept(whole: list[Item], count: int) -> None:
    """Expected: more turns only ever add, and never half of a step."""
    sent = last_turns(whole, count)
    check(whole, sent)
    assert len(sent) <= len(last_turns(whole, count + 1))


def test_a_step_with_its_calls_counts_once() -> None:
    """Expected: question, step with call and output, answer, question: the newest three begin with the step."""
    whole = [*exchange(0, 1, chat=True), USER]
    assert last_turns(whole, 3) == whole[1:]
    assert last_turns(whole, 2) == whole[3:]
    assert last_turns(whole, 4) == last_turns(whole, 9) == whole


def sent(truncation: Any, items: Sequence[Item], beside: int = 0, **config: Any) -> list[Item]:
    return asyncio.run(truncated(items, {"truncation": truncation, **config}, beside))


WHOLE = [*exchange(0, 0, chat=True), *exchange(1, 0, chat=True), USER]


def test_what_the_assistant_says_decides() -> None:
    """Expected: nothing is cut unless it says so; `auto` needs a window, and leaves room for the answer."""
    everything = sum(map(tokens.of, WHOLE))
    assert sent(None, WHOLE) == sent("disabled", WHOLE, context_window=1) == sent("auto", WHOLE) == WHOLE
    assert sent({"last_messages": 2}, WHOLE) == WHOLE[-2:]
    assert sent("auto", WHOLE, context_window=everything) == WHOLE
    assert sent("auto", WHOLE, context_window=everything, max_output_tokens=16) == WHOLE[2:]
    assert sent("auto", WHOLE, 1, context_window=everything) == WHOLE[2:]
    assert sent("auto", WHOLE, context_window=1) == WHOLE[-1:]


def newest(items: list[dict[str, Any]], config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Keep as many as the assistant's metadata says, and try to spoil what is kept."""
    items[-1]["content"] = config["model"]
    return items[-1:]


def broken(items: list[Item], config: Mapping[str, Any]) -> list[Item]:
    raise RuntimeError("no\nmore")


def wordy(items: list[Item], config: Mapping[str, Any]) -> str:
    return "items"


def hanging(items: list[Item], config: Mapping[str, Any]) -> list[Item]:
    RELEASED.wait()
    return items


RELEASED = threading.Event()
NOT_CALLABLE = 7
HERE = __name__


def test_a_function_of_ones_own_chooses() -> None:
    """Expected: it gets the items and the assistant, and what it does to them stays its own."""
    assert sent(f"{HERE}:newest", WHOLE, model="m") == [{**USER, "content": "m"}]
    assert WHOLE[-1] == USER


@pytest.mark.parametrize(
    ("named", "told"),
    [
        (f"{HERE}:broken", "raised RuntimeError: no more"),
        (f"{HERE}:wordy", "returned something else than a list of items"),
        (f"{HERE}:NOT_CALLABLE", "is no function"),
        (f"{HERE}:nothing", "cannot be imported: AttributeError"),
        ("no_such_module:f", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_function_that_fails_fails_the_run(named: str, told: str) -> None:
    """Expected: one line that names it, and no further attempt."""
    with pytest.raises(ProviderError, match=r"^truncation: ") as caught:
        sent(named, WHOLE, model="m")
    assert named in caught.value.message
    assert told in caught.value.message
    assert not caught.value.transient
    assert not caught.value.unknown


def test_a_function_that_hangs_fails_its_run_and_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: an error when its time is over, and a loop that can end; else a worker could not stop for a deploy."""
    monkeypatch.setattr(truncation, "_SECONDS", 0.1)
    watchdog = threading.Timer(10, RELEASED.set)
    watchdog.start()
    try:
        with pytest.raises(ProviderError, match=r"hanging' has taken longer than 0\.1 s"):
            sent(f"{HERE}:hanging", WHOLE, model="m")
        assert not RELEASED.is_set()
    finally:
        watchdog.cancel()
        RELEASED.set()
