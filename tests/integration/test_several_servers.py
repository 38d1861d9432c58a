"""One worker on several servers at once, each with its own protocol, address and key."""

import os
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from tasks import runs
from tests.servers import Simulator, Stack, simulator
from worker.lifecycle import Status
from worker.models import Conversation
from worker.producer import producer

pytestmark = pytest.mark.parametrize("stack", ["postgresql"], indirect=True, scope="module")

KEY = "sk-of-the-second-server"
EACH = 8
TOOLS = '[[call calculate {"expression": "1 + 2"}]][[latency 0.3]]'


@pytest.fixture(scope="module")
def servers(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Simulator]]:
    """Run two servers beside the stack's own, an assistant on each, and one worker."""
    folder = tmp_path_factory.mktemp("servers")
    with (
        simulator(folder, os.environ, "--latency", "0.05") as second,
        simulator(folder, os.environ, "--latency", "0.05", "--stateless", "true") as third,
    ):
        stack.assistant("one", tools=["calculate"])
        key = {"api_key": "RUNWRIGHT_KEY_SECOND"}
        stack.assistant("two", tools=["calculate"], backend={"protocol": "assistants", "base_url": second.url, **key})
        stack.assistant("three", tools=["calculate"], backend={"protocol": "chat", "base_url": third.url})
        with stack.worker("--without-mingle", RUNWRIGHT_KEY_SECOND=KEY) as worker:
            yield {"one": stack.simulator, "two": second, "three": third}
        assert KEY not in worker.log()


def test_each_run_goes_to_the_server_of_its_assistant(stack: Stack, servers: dict[str, Simulator]) -> None:
    """Expected: all complete side by side in one worker; each server has seen its own runs and no other's."""
    handles = {
        name: [runs.submit(assistant=name, input=f"{TOOLS}[[say {name}]]") for _ in range(EACH)] for name in servers
    }
    for name, of_server in handles.items():
        views = [handle.wait(40) for handle in of_server]
        assert {(view.status, view.output_text) for view in views} == {(Status.COMPLETED, name)}
        assert {call["output"] for view in views for call in view.tool_calls} == {"3"}
        seen = servers[name].counters()["by_run"].keys()
        assert {handle.id for handle in of_server} <= seen
        assert not seen & {handle.id for other in handles if other != name for handle in handles[other]}


def test_a_thread_goes_from_server_to_server(stack: Stack, servers: dict[str, Simulator]) -> None:
    """Expected: in order, each in a conversation of its own place that begins with what was said before."""
    names = ["one", "two", "three", "one"]
    handles = [runs.submit(assistant=name, input=f"{TOOLS}[[say {name}]]", thread="wanderer") for name in names]
    assert [handle.wait(40).output_text for handle in handles] == names
    with producer().database.read() as connection:
        rows = connection.execute(
            select(Conversation.place, Conversation.left_at)
            .where(Conversation.thread_id == "wanderer")
            .order_by(Conversation.created_at)
        ).all()
    assert [row.place.split()[0] for row in rows] == ["responses", "assistants", "chat", "responses"]
    assert [row.left_at is None for row in rows] == [False, False, False, True]
