"""Faults of a thread's runs on a real socket, as the real SDK meets them."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.beta.threads import Run

from tests.servers import Simulator, wait_until

# The SDK calls all of Assistants deprecated; other servers go on with it.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

METADATA = {"run_id": "r1", "attempt": "1", "step": "1"}
TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
def client(simulator: Simulator) -> Iterator[openai.OpenAI]:
    """Return an SDK client that tries everything once."""
    with openai.OpenAI(api_key="test", base_url=simulator.url, max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture
def assistant(client: openai.OpenAI) -> str:
    """Make an assistant with a tool."""
    return client.beta.assistants.create(model="gpt-4o", tools=[TOOL]).id


@pytest.fixture
def thread(client: openai.OpenAI) -> str:
    """Begin a thread."""
    return client.beta.threads.create().id


class Talk:
    """A thread and an assistant, and what a test does with them."""

    def __init__(self, client: openai.OpenAI, thread: str, assistant: str) -> None:
        self.client, self.thread, self.assistant = client, thread, assistant
        self.runs: Any = client.beta.threads.runs

    def start(self, text: str, **options: Any) -> Any:
        """Start a run of the client's run r1."""
        more = [{"role": "user", "content": text}]
        given = {"assistant_id": self.assistant, "additional_messages": more, "metadata": METADATA, **options}
        return self.runs.create(self.thread, **given)

    def cut(self, text: str) -> None:
        """Start a run whose connection must be cut."""
        with pytest.raises(openai.APIConnectionError) as cut:
            self.start(text)
        assert not isinstance(cut.value, openai.APITimeoutError)

    def listed(self) -> list[Run]:
        """Return the thread's runs, the oldest first."""
        return list(self.runs.list(self.thread, order="asc"))

    def submit(self, run: Run, **options: Any) -> Any:
        """Submit an output for the call of a run."""
        assert run.required_action
        given = [{"tool_call_id": run.required_action.submit_tool_outputs.tool_calls[0].id, "output": "1"}]
        return self.runs.submit_tool_outputs(run.id, thread_id=self.thread, tool_outputs=given, **options)

    def look(self, run: Run) -> Run:
        """Return the run as it stands now."""
        found: Run = self.runs.retrieve(run.id, thread_id=self.thread)
        return found


@pytest.fixture
def talk(client: openai.OpenAI, thread: str, assistant: str) -> Talk:
    return Talk(client, thread, assistant)


def test_a_connection_is_cut_before_or_after_the_work(talk: Talk, simulator: Simulator) -> None:
    """Only after is there a run, which can be found by its metadata; nothing was added to the thread before."""
    script = "[[drop before]] [[drop after]] [[latency 0]] [[say done]]"
    talk.cut(script)
    assert (talk.listed(), list(talk.client.beta.threads.messages.list(talk.thread))) == ([], [])
    talk.cut(script)
    (found,) = talk.listed()
    assert found.metadata == {"simulated": "true", **METADATA}
    assert simulator.anomalies()["dropped"] == {"before": 1, "after": 1}
    talk.start(script)
    counted = simulator.anomalies()
    assert (counted["duplicate_steps"], counted["by_run"]["r1"]["steps"]) == (1, {"1/1": 2})


def test_a_late_create_takes_the_thread_later(talk: Talk, simulator: Simulator) -> None:
    """The run appears when nobody waits for it any more; one that meets a busy thread then is refused and counted."""
    talk.cut("[[late 0.1]] [[hang]]")
    assert talk.listed() == []
    (late,) = wait_until(talk.listed, "the late run")
    assert late.status in ("queued", "in_progress")
    with pytest.raises(openai.BadRequestError, match=f"already has an active run {late.id}"):
        talk.start("x")
    assert simulator.counters(by_run=False)["rejected"] == {"active_run": 1}


def test_outputs_are_cut_as_well(talk: Talk, simulator: Simulator) -> None:
    """Before, the run still waits; after, it has them, and takes them no second time."""
    run = talk.start("[[latency 0]] [[call f {}]] [[then]] [[drop before]] [[drop after]] [[latency 0]] [[say done]]")
    assert run.status == "requires_action"
    with pytest.raises(openai.APIConnectionError):
        talk.submit(run)
    assert talk.look(run).status == "requires_action"
    with pytest.raises(openai.APIConnectionError):
        talk.submit(run)
    assert talk.look(run).status == "completed"
    with pytest.raises(openai.BadRequestError, match='Runs in status "completed" do not accept tool outputs'):
        talk.submit(run)
    assert simulator.counters(by_run=False)["duplicate_outputs"] == 0


def test_a_stuck_run_is_cancelled(talk: Talk) -> None:
    """It stays queued until then; the next try of the client's run goes through."""
    stuck = talk.start("[[stuck]] [[latency 0]]")
    assert talk.look(stuck).status == "queued"
    talk.runs.cancel(stuck.id, thread_id=talk.thread)
    wait_until(lambda: talk.look(stuck).status == "cancelled", "the cancel")
    assert talk.start("[[stuck]] [[latency 0]]").status == "completed"


def test_shares_of_faults_meet_runs(talk: Talk, simulator: Simulator) -> None:
    """429 and 500 for creates and looks, failures with a code."""
    run = talk.start("[[latency 0]]")
    simulator.settings(rate_limit_share=1)
    with pytest.raises(openai.RateLimitError):
        talk.look(run)
    simulator.settings(rate_limit_share=0, error_share=1)
    with pytest.raises(openai.InternalServerError):
        talk.start("x")
    simulator.settings(error_share=0, fail_share=1, fail_code="rate_limit_exceeded", latency="0")
    assert talk.start("x").last_error.code == "rate_limit_exceeded"


def test_a_stream_is_cut_and_the_run_goes_on(talk: Talk, simulator: Simulator) -> None:
    """Whoever looks finds its end; leaving a stream stops nothing."""
    stream = talk.start("[[cut 2]] [[latency 0.2]] [[say done]]", stream=True)
    run = next(stream).data
    with pytest.raises(openai.APIConnectionError):
        list(stream)
    wait_until(lambda: talk.look(run).status == "completed", "its end")
    left = talk.start("[[latency 0.2]] [[say done]]", stream=True)
    run = next(left).data
    left.close()
    wait_until(lambda: talk.look(run).status == "completed", "its end")
    wait_until(lambda: simulator.counters(by_run=False)["streams_open"] == 0, "the stream to be closed")


def test_a_server_without_state_has_no_threads(talk: Talk, simulator: Simulator) -> None:
    """The whole protocol is unknown to it."""
    simulator.settings(stateless=True)
    with pytest.raises(openai.NotFoundError, match="Invalid URL"):
        talk.start("x")
    simulator.settings(stateless=False)
    assert talk.listed() == []


def test_a_reset_forgets_threads(talk: Talk, simulator: Simulator) -> None:
    """They are not found afterwards, nor are assistants."""
    simulator.reset()
    with pytest.raises(openai.NotFoundError, match="No thread found"):
        talk.listed()
    with pytest.raises(openai.NotFoundError, match="No assistant found"):
        talk.client.beta.assistants.retrieve(talk.assistant)
