"""The simulator as a server that keeps nothing, as Ollama, llama.cpp and OpenRouter are."""

from collections.abc import Iterator

import openai
import pytest

from tests.servers import Simulator


@pytest.fixture
def client(simulator: Simulator) -> Iterator[openai.OpenAI]:
    """Return a client of a server without state; afterwards it has state again."""
    simulator.settings(stateless=True)
    with openai.OpenAI(api_key="test", base_url=simulator.url, max_retries=0, timeout=10) as client:
        yield client
    simulator.settings(stateless=False)


def test_background_and_store_count_for_nothing(client: openai.OpenAI) -> None:
    """The answer is there at once, of a model of any name, and cannot be had once more."""
    response = client.responses.create(model="llama3.2", input="[[say here]]", background=True, store=True)
    assert (response.status, response.output_text, response.model) == ("completed", "here", "llama3.2")
    assert (response.background, response.model_dump()["store"]) == (False, False)
    with pytest.raises(openai.NotFoundError, match=r"Invalid URL \(GET /v1/responses/resp_"):
        client.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel(response.id)


def test_a_stream_is_a_foreground_one(client: openai.OpenAI) -> None:
    """It begins without queued, whatever the request says."""
    with client.responses.create(model="llama3.2", input="x", background=True, stream=True) as stream:
        kinds = [event.type for event in stream]
    assert kinds[:2] == ["response.created", "response.in_progress"]


@pytest.mark.parametrize("named", [{"previous_response_id": "resp_1"}, {"conversation": "conv_1"}])
def test_what_needs_state_is_refused(client: openai.OpenAI, named: dict[str, str]) -> None:
    """By name, with 400: silence would lose the history."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="llama3.2", input="x", **named)  # type: ignore[call-overload]
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", next(iter(named)))


def test_there_are_no_conversations(client: openai.OpenAI, simulator: Simulator) -> None:
    """Their routes do not exist until the switch is off again; the models' do."""
    with pytest.raises(openai.NotFoundError, match="Invalid URL"):
        client.conversations.create()
    assert client.models.list().data
    simulator.settings(stateless=False)
    assert client.conversations.create().id
