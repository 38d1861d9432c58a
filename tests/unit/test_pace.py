"""What the engine says reaches a run wherever it waits, also in the very moment in which its time is over."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.conformance.ground import Ground
from tests.workbench import Provider, parts
from worker.pace import HandOver, Held, Pace


@pytest.fixture
def ground(sqlite_url: str) -> Iterator[Ground]:
    """Give a database with an assistant, and a worker."""
    ground = Ground(sqlite_url)
    ground.boot()
    yield ground
    ground.close()


def test_what_is_told_as_the_time_runs_out_does_no_harm(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: the teller, who has a thousand others to tell, gets no error, and the run is handed over."""
    ground.submit()
    held = Held(ground.take())
    told: list[str] = []

    def tell() -> None:
        try:
            held.tell(stop=True)
        except RuntimeError as error:
            told.append(str(error))

    async def story() -> None:
        pace = Pace(held, parts(ground, Provider()), lambda: True)
        monkeypatch.setattr(pace, "seconds_left", lambda: 0.0)  # passes in the round of the loop in which it is told

        async def request() -> None:
            asyncio.get_running_loop().call_soon(tell)
            await asyncio.Event().wait()

        await pace.unless_told(request)

    with pytest.raises(HandOver):
        asyncio.run(story())
    assert (held.stopping, told) == (True, [])


def test_a_wait_that_ends_late_takes_no_other_with_it(ground: Ground) -> None:
    """Expected: a pause that is being cancelled while the next wait has begun leaves that one its ear."""
    ground.submit()
    held = Held(ground.take())
    heard: list[str] = []
    late = held.heard_by(lambda: heard.append("late"))
    late.__enter__()
    with held.heard_by(lambda: heard.append("next")):
        late.__exit__(None, None, None)
        held.tell(stop=True)
    assert heard == ["next"]
