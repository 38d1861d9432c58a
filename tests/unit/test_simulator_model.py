"""The simulated model: what it makes of a text, pure and without a server."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import reading, sums, wire
from simulator.directives import script_of
from simulator.model import Reply, reply_to
from simulator.prompt import Prompt, split_request

TASK = (
    "Summarise this document in one sentence, look up its supplier in the table suppliers.csv "
    "and compute the total with VAT."
)
INVOICE = """Invoice

Supplier: Nordwind Paper GmbH
Invoice number: NP-2026-0314
Date: 2026-03-14

Net total: 1,240.50 EUR
VAT rate: 19%
"""


def function(name: str, description: str, /, **properties: object) -> dict[str, Any]:
    """Return a function tool; a plain string as a property is a string parameter with that description."""
    specs = {
        key: {"type": "string", "description": spec} if isinstance(spec, str) else spec
        for key, spec in properties.items()
    }
    schema = {"type": "object", "properties": specs, "required": list(specs), "additionalProperties": False}
    return {"type": "function", "name": name, "description": description, "parameters": schema, "strict": True}


TOOLS = [
    function("read_document", "Read the text of a document by its name.", name="The document's file name"),
    function("lookup_table", "Look up rows of a CSV table.", table="Its file name", column="A column", value="A value"),
    function("calculate", "Work out an arithmetic expression.", expression="Such as 2 * (3 + 4)"),
]


def ask(text: str, /, *outputs: str, attempt: int = 1, **body: Any) -> Reply:
    """Return the reply to a message; the outputs answer the calls of the earlier rounds, in order."""
    items, waiting = [wire.message_item("user", text)], list(outputs)
    body = {"tools": TOOLS, **body}
    while True:
        reply = reply_to(Prompt.of(body, items, attempt))
        if not (reply.calls and waiting):
            return reply
        calls = [wire.function_call_item(name, arguments) for name, arguments in reply.calls]
        answers = [{"type": "function_call_output", "call_id": c["call_id"], "output": waiting.pop(0)} for c in calls]
        items += [*calls, *map(wire.stored_item, answers)]


def called(reply: Reply) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls of a reply with their arguments read."""
    return [(name, json.loads(arguments)) for name, arguments in reply.calls]


SUPPLIER = ("lookup_table", {"table": "suppliers.csv", "column": "supplier", "value": "Nordwind Paper GmbH"})
TOTAL = ("calculate", {"expression": "1240.50 * 1.19"})


@pytest.mark.parametrize(
    "layout", ["{}\n\n{}", "{}\n\nDocument: a.txt\n\n{}", '{}\n\n<document name="a.md">\n{}</document>']
)
def test_the_demo_task_calls_both_functions_at_once(layout: str) -> None:
    """The supplier and the figures come out of the document, however the document is attached."""
    assert called(ask(layout.format(TASK, INVOICE))) == [SUPPLIER, TOTAL]


def test_the_demo_task_is_answered_from_document_and_outputs() -> None:
    """The answer has the document's facts and quotes what the functions said."""
    rows = json.dumps({"matches": 1, "rows": [{"supplier": "Nordwind Paper GmbH", "country": "Germany"}]})
    text = ask(f"{TASK}\n\n{INVOICE}", rows, "1476.195").text
    assert "supplier Nordwind Paper GmbH, invoice number NP-2026-0314, date 2026-03-14" in text
    assert "country Germany" in text
    assert "Total with VAT: 1,476.20 EUR (1240.50 * 1.19 = 1476.195)" in text


def test_what_a_document_says_is_used_once_it_has_been_read() -> None:
    """A later round takes its arguments from the output of an earlier one."""
    text = "Read invoice-3.md, then look up its supplier in suppliers.csv and compute the total including VAT."
    assert called(ask(text)) == [("read_document", {"name": "invoice-3.md"})]
    assert called(ask(text, INVOICE + "Thank you. " * 20)) == [SUPPLIER, TOTAL]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("look up supplier ACME in suppliers.csv", ("lookup_table", {**SUPPLIER[1], "value": "ACME"})),
        ("compute 12*7+3", ("calculate", {"expression": "12*7+3"})),
        ("What is 19% of 200?", ("calculate", {"expression": "200 * 19 / 100"})),
        ("read the document notes.md", ("read_document", {"name": "notes.md"})),
    ],
)
def test_a_plain_request_calls_the_function_it_speaks_of(text: str, expected: tuple[str, dict[str, str]]) -> None:
    """One request, one call, arguments from the text."""
    assert called(ask(text)) == [expected]


def test_a_schema_never_seen_before_is_filled_from_the_text() -> None:
    """Enums, numbers and nullable parameters of any function are respected."""
    days = {"type": ["integer", "null"]}
    unit = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    weather = function("get_weather", "Get the weather of a city.", city="The city", unit=unit, days=days)
    reply = ask("What's the weather in Paris in celsius?", tools=[weather])
    assert called(reply) == [("get_weather", {"city": "Paris", "unit": "celsius", "days": None})]


def test_the_instructions_can_ask_as_well() -> None:
    """A bare document is worked on as the instructions say."""
    instructions = "You are a clerk. Look up the supplier in suppliers.csv and calculate the total with VAT."
    assert called(ask(INVOICE, instructions=instructions)) == [SUPPLIER, TOTAL]


@pytest.mark.parametrize(
    "body", [{"tools": []}, {"tool_choice": "none"}, {"tool_choice": {"type": "function", "name": "read_document"}}]
)
def test_only_functions_that_are_offered_are_called(body: dict[str, Any]) -> None:
    """Without tools, or with a tool_choice that forbids it, nothing is looked up or computed."""
    assert {name for name, _ in ask(f"{TASK}\n\n{INVOICE}", **body).calls} <= {"read_document"}


def test_one_call_at_a_time_without_parallel_calls() -> None:
    """parallel_tool_calls=false spreads the calls over rounds."""
    text = f"{TASK}\n\n{INVOICE}"
    assert called(ask(text, parallel_tool_calls=False)) == [SUPPLIER]
    assert called(ask(text, "{}", parallel_tool_calls=False)) == [TOTAL]


def test_a_call_is_tried_again_with_the_column_that_the_error_names() -> None:
    """An error output is read; the same call is not made twice, and an endless error ends."""
    error = "Error: There is no column 'supplier'. Its columns are: name, country."
    text = "look up supplier ACME in suppliers.csv"
    assert called(ask(text, error)) == [("lookup_table", {**SUPPLIER[1], "column": "name", "value": "ACME"})]
    assert ask(text, error, error).text.startswith("lookup_table could not help")


def test_an_output_is_told_under_what_was_asked_for() -> None:
    """Expected: the verb is left out whole, "work out" as well as "look up"."""
    output = '{"name": "ACME"}'
    for verb in ("look up", "find out"):
        assert ask(f"{verb} the supplier ACME in suppliers.csv", output).text.startswith(
            "Supplier ACME in suppliers.csv:"
        )


def test_a_question_is_answered_with_the_sentence_that_speaks_of_it() -> None:
    """Prose is answered by extraction, from the document or from earlier in the conversation."""
    notes = "The team met in Oslo. Delivery of the crane is delayed until June. Maria writes the plan for the budget."
    assert (
        ask(f"When is the crane delivered?\n\n# Notes\n\n{notes}").text
        == "Delivery of the crane is delayed until June."
    )
    items = [
        wire.message_item("user", notes),
        wire.message_item("assistant", "Noted."),
        wire.message_item("user", "Who writes the plan?"),
    ]
    assert reply_to(Prompt.of({}, items, 1)).text == "Maria writes the plan for the budget."


def test_a_json_schema_is_answered_with_json() -> None:
    """Structured output has the schema's properties, taken from the document."""
    schema = {"type": "object", "properties": {"supplier": {"type": "string"}, "date": {"type": "string"}}}
    text = ask(f"Extract.\n\n{INVOICE}", tools=[], text={"format": {"type": "json_schema", "schema": schema}}).text
    assert json.loads(text) == {"supplier": "Nordwind Paper GmbH", "date": "2026-03-14"}


def test_directives_call_in_rounds_and_say_the_answer() -> None:
    """Calls before [[then]] go into one response, those after it into the next; JSON may contain ]]."""
    text = 'x [[call a {"v": [[1]]}]] [[call b {}]] [[then]] [[call a {"v": 2}]] [[say the end]]'
    assert called(ask(text)) == [("a", {"v": [[1]]}), ("b", {})]
    assert called(ask(text, "1", "2")) == [("a", {"v": 2})]
    assert ask(text, "1", "2", "3").text == "the end"


def test_arguments_of_a_directive_may_be_broken() -> None:
    """What is not JSON goes out as it stands, so that a test can send a worker bad arguments."""
    assert ask("[[call a {nonsense]]").calls == (("a", "{nonsense"),)


def test_directives_for_time_tokens_and_ends() -> None:
    """Each of the remaining directives sets its part of the reply."""
    reply = ask("[[latency 2.5]] [[tokens 77]] [[incomplete]]")
    assert (reply.latency, reply.tokens, reply.incomplete) == (2.5, 77, True)
    assert ask("[[hang]]").hangs
    assert ask("[[fail rate_limit_exceeded Quota is gone]]").failure == ("rate_limit_exceeded", "Quota is gone")


def test_a_failure_can_be_limited_to_the_first_creates_of_a_run() -> None:
    """x2 fails the first two creates and lets the third succeed."""
    text = "[[fail server_error Try again x2]] [[say fine]]"
    assert [ask(text, attempt=attempt).failure is None for attempt in (1, 2, 3)] == [False, False, True]
    assert ask(text).failure == ("server_error", "Try again")


def test_a_text_without_directives_has_no_script() -> None:
    """Brackets of other languages are left alone."""
    assert script_of("see [[Some page]] and a[[1, 2]]", 1) == (None, "see [[Some page]] and a[[1, 2]]")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1,240.50", "1240.50"), ("1.240,50", "1240.50"), ("1,240", "1240"), ("12,5", "12.5"), ("1.234.567", "1234567")],
)
def test_numbers_are_read_with_either_separator(text: str, expected: str) -> None:
    """The last separator is the decimal one where both occur."""
    assert str(reading.number(text)) == expected


@given(st.text(alphabet="019., -%", max_size=60))
def test_any_heap_of_digits_is_read_without_an_error(text: str) -> None:
    """Numbers come from documents, so nothing in them may break the reading."""
    assert all(found.is_finite() for found in reading.numbers(text))
    sums.expression(f"compute {text} of {text} with VAT", f"Net total: {text}\nVAT rate: {text}%")


def test_a_date_is_no_subtraction() -> None:
    """Only arithmetic counts as an expression."""
    assert sums.expression("pay by 2026-03-14 please", "") is None


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_gets_a_reply(request: str, document: str) -> None:
    """Whatever is written, the model answers or calls offered functions with JSON objects."""
    reply = ask(f"{request}\n\n{document}")
    assert (
        reply.calls or reply.text or reply.failure or reply.hangs or reply.incomplete or "[[say" in request + document
    )
    assert all(isinstance(arguments, dict) for _, arguments in called(reply))


@given(st.text(max_size=400))
def test_splitting_a_request_from_its_document_invents_nothing(text: str) -> None:
    """Both halves consist of lines of the text."""
    request, document = split_request(text)
    assert all(line.strip() in text for line in f"{request}\n{document}".split("\n"))
