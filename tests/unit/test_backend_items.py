"""What items tell of a create whose answer was lost: adopted only where it is exactly ours, and whole."""

from typing import Any

import pytest

from worker.backends.base import Tail
from worker.backends.responses.items import answer_to, tail

Item = dict[str, Any]


def asked(text: str) -> Item:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def said(text: str, **more: Any) -> Item:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"id": f"msg_{len(text)}", "type": "message", "role": "assistant", "content": content, **more}


def call(call_id: str) -> Item:
    return {"id": f"fc_{call_id}", "type": "function_call", "call_id": call_id, "name": "add", "arguments": "{}"}


def output(call_id: str) -> Item:
    return {"type": "function_call_output", "call_id": call_id, "output": "1"}


def stored(item: Item) -> Item:
    """Return an item as the server gives it back: with an id, a status, and fields of its own."""
    return {"id": "msg_stored", "status": "completed", **item}


def test_an_answer_behind_our_input_is_adopted() -> None:
    """Its text is the run's, and its last item is where the conversation goes on."""
    found = answer_to([asked("hello")], [stored(asked("hello")), said("good day")])
    assert found is not None
    assert (found.status, found.text, found.output[-1].id) == ("completed", "good day", "msg_8")


def test_calls_behind_our_outputs_are_adopted() -> None:
    """A step that gave outputs is found by their call ids; reasoning in between is passed over."""
    reasoning = {"id": "rs_1", "type": "reasoning", "summary": []}
    found = answer_to([output("c1"), asked("go on")], [output("c1"), stored(asked("go on")), reasoning, call("c2")])
    assert found is not None
    assert [one.call_id for one in found.calls] == ["c2"]


def test_outputs_that_repaired_the_conversation_are_passed_over() -> None:
    """Answers to calls that no ledger knows stand before our input; a worker after a crash knows nothing of them."""
    found = answer_to([asked("hello")], [output("stray"), stored(asked("hello")), said("good day")])
    assert found is not None


def test_an_answer_that_was_cut_is_incomplete() -> None:
    """The item says so itself; the reason is not in the conversation."""
    found = answer_to([asked("hello")], [stored(asked("hello")), said("good", status="incomplete")])
    assert found is not None
    assert found.status == "incomplete"


@pytest.mark.parametrize(
    "items",
    [
        pytest.param([], id="nothing"),
        pytest.param([stored(asked("hello"))], id="only the input"),
        pytest.param([stored(asked("hello")), {"id": "rs_1", "type": "reasoning"}], id="thinking only"),
        pytest.param([stored(asked("bye")), said("good day")], id="another input"),
        pytest.param([said("good day")], id="an answer without the input"),
        pytest.param([stored(asked("hello")), stored(asked("hello")), said("good day")], id="the input twice"),
        pytest.param([stored(asked("hello")), said("a"), stored(asked("more")), said("b")], id="somebody went on"),
        pytest.param([said("before"), stored(asked("hello")), said("good day")], id="something before"),
        pytest.param([{**asked("hello"), "content": 7}, said("good day")], id="a content that is none"),
        pytest.param([{**asked("hello"), "content": [7]}, said("good day")], id="a part that is none"),
        pytest.param([{**asked("hello"), "content": [{"type": []}]}, said("good day")], id="a part of no kind"),
    ],
)
def test_what_is_not_exactly_ours_is_not_adopted(items: list[Item]) -> None:
    """Taking another response's answer for ours is worse than not knowing."""
    assert answer_to([asked("hello")], items) is None


def test_the_tail_names_the_calls_without_an_output() -> None:
    """Newest first in, oldest first out; an empty conversation has no last item."""
    newest_first = [call("c3"), output("c1"), call("c2"), call("c1"), stored(asked("hello"))]
    assert tail(newest_first) == Tail("fc_c3", ("c2", "c3"))
    assert tail([]) == Tail("", ())
