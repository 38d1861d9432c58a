"""The simulator's faults on a real socket, as the real SDK meets them."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from tests.servers import Simulator, wait_until


@pytest.fixture
def client(simulator: Simulator) -> Iterator[openai.OpenAI]:
    """Return an SDK client that tries everything once."""
    with openai.OpenAI(api_key="test", base_url=simulator.url, max_retries=0, timeout=10) as client:
        yield client


def create(client: openai.OpenAI, text: Any, run_id: str = "r1", **body: Any) -> Response:
    """Create a background response as step 1 of a run's first attempt."""
    metadata = {"run_id": run_id, "attempt": "1", "step": "1"}
    made: Response = client.responses.create(
        model="gpt-4o", input=text, background=True, store=True, metadata=metadata, **body
    )
    return made


def refused(client: openai.OpenAI, text: str, **body: Any) -> None:
    """Create a response whose connection must be cut: no status, no answer."""
    with pytest.raises(openai.APIConnectionError) as cut:
        create(client, text, **body)
    assert not isinstance(cut.value, openai.APITimeoutError)
    assert "disconnected" in str(cut.value.__cause__)


def made(simulator: Simulator) -> int:
    """Return how many responses there are."""
    return int(simulator.counters(by_run=False)["provider_runs"])


def test_a_connection_is_cut_before_or_after_the_work(client: openai.OpenAI, simulator: Simulator) -> None:
    """The client sees the same; only after is there a response, and the third create of the round goes through."""
    script = "[[drop before]] [[drop after]] [[say done]]"
    seen = []
    for _ in range(2):
        refused(client, script)
        seen.append(made(simulator))
    assert create(client, script).id
    assert [*seen, made(simulator)] == [0, 1, 2]
    counted = simulator.anomalies()
    assert counted["dropped"] == {"before": 1, "after": 1}
    assert counted["by_run"]["r1"]["steps"] == {"1/1": 2}


def test_a_share_of_creates_and_looks_is_cut(client: openai.OpenAI, simulator: Simulator) -> None:
    """A look is cut as a create is; what was done before stays."""
    response = create(client, "x")
    simulator.settings(drop_before_share=1)
    with pytest.raises(openai.APIConnectionError):
        client.responses.retrieve(response.id)
    refused(client, "x")
    simulator.settings(drop_before_share=0, drop_after_share=1)
    refused(client, "x")
    assert made(simulator) == 2


def test_a_late_create_is_carried_out_after_its_connection_was_cut(client: openai.OpenAI, simulator: Simulator) -> None:
    """The response appears later, once; one that was on its way at a reset never does."""
    conversation = client.conversations.create().id
    refused(client, "[[late 0.2]] [[say late]]", conversation=conversation)
    assert made(simulator) == 0
    wait_until(lambda: made(simulator), "the late create")
    items = wait_until(lambda: client.conversations.items.list(conversation, order="asc").data, "its end")
    assert [item.type for item in items] == ["message", "message"]
    simulator.settings(late_share=1, late_seconds=0.1)
    refused(client, "x")
    simulator.reset()
    simulator.settings(late_share=0)
    refused(client, "[[late 0.2]]")
    wait_until(lambda: made(simulator), "the later of two late creates")
    assert made(simulator) == 1


def test_a_slow_body_arrives_whole(client: openai.OpenAI, simulator: Simulator) -> None:
    """It takes its time and is the response all the same."""
    begun = time.monotonic()
    assert create(client, "[[slow 0.3]]").status == "queued"
    assert time.monotonic() - begun > 0.25
    response = create(client, "x")
    simulator.settings(slow_share=1, slow_seconds=60)
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).responses.retrieve(response.id)


def test_a_stuck_response_stays_queued_until_it_is_cancelled(client: openai.OpenAI, simulator: Simulator) -> None:
    """Only the first create of the run is stuck; a share makes others so, and fails others with a code."""
    stuck = create(client, "[[stuck]] [[latency 0]]")
    assert client.responses.retrieve(stuck.id).status == "queued"
    assert client.responses.cancel(stuck.id).status == "cancelled"
    assert create(client, "[[stuck]] [[latency 0]]").status == "completed"
    simulator.settings(stuck_share=1)
    assert create(client, "[[latency 0]]").status == "queued"
    simulator.settings(stuck_share=0, fail_share=1, fail_code="rate_limit_exceeded")
    failed = create(client, "[[latency 0]]")
    assert failed.error
    assert (failed.status, failed.error.code, failed.output) == ("failed", "rate_limit_exceeded", [])


@pytest.mark.parametrize(("mode", "error"), [("drop", "APIConnectionError"), ("503", "InternalServerError")])
def test_an_outage_takes_every_route(client: openai.OpenAI, simulator: Simulator, mode: str, error: str) -> None:
    """The API is away until the outage is switched off; the simulator's own routes are not."""
    conversation = client.conversations.create().id
    simulator.settings(outage=mode)
    calls: list[Callable[[], Any]] = [
        client.models.list,
        client.conversations.create,
        lambda: client.conversations.items.list(conversation),
    ]
    for call in calls:
        with pytest.raises(openai.APIError) as away:
            call()
        assert type(away.value).__name__ == error
    simulator.settings(outage="off")
    assert client.conversations.retrieve(conversation).id


def test_an_outage_that_hangs_answers_nothing(client: openai.OpenAI, simulator: Simulator) -> None:
    """A request waits until its client gives up; nothing is done, then or later."""
    simulator.settings(outage="hang")
    with pytest.raises(openai.APITimeoutError):
        create(client.with_options(timeout=0.3), "x")
    simulator.settings(outage="off")
    assert create(client, "x").id
    assert made(simulator) == 1


def test_a_page_after_an_unknown_item_is_an_error(client: openai.OpenAI) -> None:
    """Pages of a hundred follow each other to the last; a cursor that is gone never begins again at the front."""
    conversation = client.conversations.create().id
    message: Any = {"type": "message", "role": "user", "content": "x"}
    added = [client.conversations.items.create(conversation, items=[message] * 20) for _ in range(6)]
    ids = [str(item.id) for page in added for item in page.data]
    listed = client.conversations.items.list
    assert [item.id for item in listed(conversation, order="asc", limit=100)] == ids
    second = listed(conversation, order="asc", limit=100, after=ids[19])
    assert ([item.id for item in second.data], second.has_more) == (ids[20:], False)
    empty = listed(conversation, order="asc", limit=100, after=ids[-1])
    assert (empty.data, empty.has_more, empty.last_id) == ([], False, None)
    client.conversations.items.delete(ids[0], conversation_id=conversation)
    with pytest.raises(openai.NotFoundError, match="not found in conversation"):
        listed(conversation, order="asc", after=ids[0])


def test_a_stream_is_cut_or_stalls(client: openai.OpenAI, simulator: Simulator) -> None:
    """After so many events the connection breaks or says nothing more; the response itself goes on to its end."""
    asked: Any = {"model": "gpt-4o", "background": True, "stream": True, "metadata": {"run_id": "r1"}}
    for error in (openai.APIConnectionError, openai.APITimeoutError):
        stream: Any = client.responses.create(input="[[cut 2]] [[stall 1]]", timeout=1, **asked)
        ident = next(stream).response.id
        with pytest.raises(openai.APIConnectionError) as broken:
            list(stream)
        assert type(broken.value) is error
        wait_until(lambda: client.responses.retrieve(ident).status == "completed", "its end")  # noqa: B023 - here only
    assert simulator.anomalies()["dropped"] == {"stream cut": 1, "stream stall": 1}


def test_shares_of_streams_break(client: openai.OpenAI, simulator: Simulator) -> None:
    """Every one where the share is 1, after as many events as the setting says."""
    simulator.settings(stream_cut_share=1, stream_events=3)
    stream: Any = client.responses.create(model="gpt-4o", input="x", background=True, stream=True)
    for _ in range(3):
        next(stream)
    with pytest.raises(openai.APIConnectionError):
        next(stream)
