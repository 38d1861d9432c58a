"""Faults and limits of chat completions on a real socket, as the real SDK meets them."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.servers import Simulator, wait_until


@pytest.fixture
def client(simulator: Simulator) -> Iterator[openai.OpenAI]:
    """Return an SDK client that tries everything once."""
    with openai.OpenAI(api_key="test", base_url=simulator.url, max_retries=0, timeout=10) as client:
        yield client


def ask(client: openai.OpenAI, text: str, step: str = "r1/1/1", **options: Any) -> Any:
    """Create a completion for a step of a run."""
    messages: Any = [{"role": "user", "content": text}]
    headers = {"X-Client-Request-Id": f"{step}/once"}
    return client.chat.completions.create(model="gpt-4o", messages=messages, extra_headers=headers, **options)


def made(simulator: Simulator) -> int:
    """Return how many completions there were."""
    return int(simulator.counters(by_run=False)["provider_runs"])


def test_a_connection_is_cut_before_or_after_the_work(client: openai.OpenAI, simulator: Simulator) -> None:
    """Each once for the step; a step that was carried out twice shows as such."""
    script = "[[drop before]] [[drop after]] [[latency 0]] [[say done]]"
    seen = []
    for _ in range(2):
        with pytest.raises(openai.APIConnectionError):
            ask(client, script)
        seen.append(made(simulator))
    assert ask(client, script).choices[0].message.content == "done"
    assert [*seen, made(simulator)] == [0, 1, 2]
    counted = simulator.anomalies()
    assert (counted["duplicate_steps"], counted["by_run"]["r1"]["steps"]) == (1, {"1/1": 2})


def test_a_late_completion_is_made_after_its_connection_was_cut(client: openai.OpenAI, simulator: Simulator) -> None:
    """It counts as a provider run of its step."""
    with pytest.raises(openai.APIConnectionError):
        ask(client, "[[late 0.1]]")
    wait_until(lambda: made(simulator), "the late completion")
    assert simulator.counters()["by_run"]["r1"]["provider_runs"] == 1


def test_a_slow_body_and_an_outage(client: openai.OpenAI, simulator: Simulator) -> None:
    """The one arrives whole, the other takes every request."""
    assert ask(client, "[[slow 0.2]] [[say x]]").choices[0].message.content == "x"
    simulator.settings(outage="503")
    with pytest.raises(openai.InternalServerError):
        ask(client, "x")
    simulator.settings(outage="off")
    assert ask(client, "[[latency 0]]").choices


def test_shares_of_errors_and_failures(client: openai.OpenAI, simulator: Simulator) -> None:
    """429 before the work, and 429 for a completion that failed: only the second was a provider run."""
    simulator.settings(rate_limit_share=1, retry_after=3)
    with pytest.raises(openai.RateLimitError) as refused:
        ask(client, "x")
    assert refused.value.response.headers["retry-after"] == "3"
    simulator.settings(rate_limit_share=0, fail_share=1, fail_code="rate_limit_exceeded", latency="0")
    with pytest.raises(openai.RateLimitError, match="told to fail"):
        ask(client, "x")
    assert made(simulator) == 1


def test_the_limiter_counts_completions(client: openai.OpenAI, simulator: Simulator) -> None:
    """The answer tells what is left; one too many is refused with the time to wait, tokens by the limit of output."""
    simulator.settings(requests_per_minute=1, tokens_per_minute=0, latency="0")
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}])
    assert raw.headers["x-ratelimit-limit-requests"] == "1"
    assert raw.headers["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(openai.RateLimitError) as refused:
        ask(client, "x")
    assert int(refused.value.response.headers["retry-after"]) > 30
    simulator.settings(requests_per_minute=0, tokens_per_minute=100)
    ask(client, "x", max_completion_tokens=90)
    with pytest.raises(openai.RateLimitError, match="tokens per min"):
        ask(client, "x", max_completion_tokens=90)


def test_a_stream_is_cut_or_stalls_or_fails(client: openai.OpenAI, simulator: Simulator) -> None:
    """After so many chunks nothing more comes; a failure comes as an error in the stream."""
    for error in (openai.APIConnectionError, openai.APITimeoutError):
        stream = ask(client, "[[cut 2]] [[stall 2]] [[latency 0]]", stream=True, timeout=1)
        next(stream)
        with pytest.raises(openai.APIConnectionError) as broken:
            list(stream)
        assert type(broken.value) is error
    assert simulator.anomalies()["dropped"] == {"stream cut": 1, "stream stall": 1}
    with pytest.raises(openai.APIError, match="Not now") as failed:
        list(ask(client, "[[fail server_error Not now]] [[latency 0]]", stream=True))
    assert failed.value.code == "server_error"


def test_outputs_may_come_again_only_after_a_step_that_was_stopped(client: openai.OpenAI, simulator: Simulator) -> None:
    """A client that left stops its step: the next try's outputs are no duplicates; after a whole answer they are."""
    simulator.settings(latency="0")
    call = {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    history: Any = [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_a", "content": "1"},
    ]

    def step(text: str, **options: Any) -> None:
        messages: Any = [{"role": "user", "content": f"[[call f {{}}]] [[then]] {text}"}, *history]
        headers = {"X-Client-Request-Id": "r1/1/2/once"}
        client.chat.completions.create(model="gpt-4o", messages=messages, extra_headers=headers, **options)

    with pytest.raises(openai.APITimeoutError):
        step("[[hang]]", timeout=0.3)
    wait_until(lambda: simulator.counters()["by_run"]["r1"]["ended_at"], "the step to be stopped")
    step("[[say x]]")
    counted = simulator.counters(by_run=False)
    assert (counted["duplicate_outputs"], counted["outputs_after_failure"]) == (0, 1)
    step("[[say x]]")
    assert simulator.counters(by_run=False)["duplicate_outputs"] == 1
