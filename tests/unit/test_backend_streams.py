"""Bytes to events: however the network cuts them, and as OpenAI was recorded sending them."""

import gzip
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recordings import need
from worker.backends.responses.bodies import BegunEvent, EndedEvent
from worker.backends.responses.streams import BEGUN, ENDED
from worker.backends.transport.bodies import read
from worker.backends.transport.sse import Event, Reader

ALL = frozenset({b"a", b"b", b"long.name"})


def events(chunks: Iterable[bytes], wanted: frozenset[bytes] = ALL) -> list[Event]:
    reader = Reader(wanted)
    return [event for chunk in chunks for event in reader.feed(chunk)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"event: a\ndata: 1\n\n", [(b"a", b"1")]),
        (b"event: a\r\ndata: 1\r\n\r\nevent: b\r\ndata: 2\r\n\r\n", [(b"a", b"1"), (b"b", b"2")]),
        (b"event: a\rdata: 1\r\r", [(b"a", b"1")]),
        (b"event:a\ndata:1\ndata: 2\ndata\n\n", [(b"a", b"1\n2\n")]),
        (b": a comment\n\nevent: a\n: another\nid: 7\nretry: 9\nnonsense\ndata:  1\n\n", [(b"a", b" 1")]),
        (b"data: 1\nevent: a\n\n", [(b"a", b"1")]),
        (b"event: other\ndata: 1\n\ndata: 2\n\nevent: a\n\nevent: b\ndata: 3\n\n", [(b"b", b"3")]),
        (b"event: a\ndata: 1\n", []),
        ("event: a\ndata: ü\u2028\u0085\n\n".encode(), [(b"a", "ü\u2028\u0085".encode())]),
    ],
    ids=["plain", "crlf", "cr", "many lines", "comments", "data first", "not wanted", "not whole", "no line ends"],
)
def test_events_are_read_as_the_standard_says(text: bytes, found: list[Event]) -> None:
    """Expected: fields, comments and each of the three line ends; what has no blank line behind it is no event."""
    assert events([text]) == found


LINES = st.sampled_from(
    [b"event: a", b"event:long.name", b"event: other", b"data: {}", b"data:x", b"data", b":c", b"", b"", b"id: 1"]
)


@given(st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"]))), st.data())
def test_no_cutting_changes_what_is_read(lines: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    """Expected: the same events from one chunk, from single bytes, and from any chunks between, empty ones included."""
    text = b"".join(line + end for line, end in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    chunks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert events(chunks) == events([text]) == events(text[at : at + 1] for at in range(len(text)))


def recorded() -> list[dict[str, Any]]:
    with gzip.open(need("openai-exchanges.jsonl.gz"), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if '"ctype": "text/event-stream' in line]
    return [row for row in rows if row["path"].startswith("/responses")]


def test_recorded_streams_give_their_first_and_last_events() -> None:
    """Expected: of each of OpenAI's streams one event with the id and one whole response; no delta is parsed."""
    rows = recorded()
    assert len(rows) > 50
    for row in rows:
        body = row["body"].encode()
        found = events((body[at : at + 1000] for at in range(0, len(body), 1000)), BEGUN | ENDED)
        assert found[-1][0] == b"response.completed", row["file"]
        assert {name for name, _ in found[:-1]} <= BEGUN
        last = read(found[-1][1], EndedEvent).response
        assert {read(text, BegunEvent).response.id for _, text in found} == {last.id}
        assert last.status == "completed"
