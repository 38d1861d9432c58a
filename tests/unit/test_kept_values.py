"""What is kept of an answer as it came holds nothing that a row or the next request could not."""

import json
from typing import Any

import pytest
from pydantic import BaseModel

from worker.backends.foreground.chunks import Chunk
from worker.backends.responses.bodies import ItemsBody, ResponseBody
from worker.backends.transport.bodies import read

NO_NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1E+999"]
CALL = '{"id": "c", "function": {"name": "f", "arguments": {"a": [HERE]}}, "signature": {"score": HERE}}'


def odd(body: str, number: str, kind: type[BaseModel]) -> Any:
    """Read a body in which this number stands, and return what is made of it as JSON would say it."""
    kept = read(body.replace("HERE", number).encode(), kind).model_dump()
    return json.loads(json.dumps(kept, allow_nan=False))


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_a_call_goes_back_without_numbers_that_are_none(number: str) -> None:
    """Expected: its arguments and what else it holds, with null in their place."""
    said = odd(f'{{"choices": [{{"message": {{"tool_calls": [{CALL}]}}}}]}}', number, Chunk)
    (call,) = said["choices"][0]["message"]["tool_calls"]
    assert (call["function"]["arguments"], call["signature"]) == ({"a": [None]}, {"score": None})


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_items_of_a_conversation_hold_no_numbers_that_are_none(number: str) -> None:
    """Expected: null in their place, however deep they stand."""
    assert odd('{"data": [{"id": "i", "deep": [{"score": HERE}]}]}', number, ItemsBody)["data"] == [
        {"id": "i", "deep": [{"score": None}]}
    ]


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_a_time_that_is_none_is_not_known(number: str) -> None:
    """Expected: the answer all the same, since it has been paid for."""
    said = odd('{"id": "resp_1", "status": "completed", "completed_at": HERE}', number, ResponseBody)
    assert (said["id"], said["completed_at"]) == ("resp_1", None)
