"""Workers that are gone are found when their leases are over, and the database is asked no more than that takes."""

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection

from tests.conformance.ground import Ground
from tests.workbench import Provider, parts
from worker import reaping
from worker.reaping import Reaper
from worker.store import leases

LEASE = 600.0


class Valid:
    """A lease of our own that holds."""

    def valid(self) -> bool:
        return True

    def settled(self) -> bool:
        return True


@pytest.fixture
def ground(sqlite_url: str) -> Iterator[Ground]:
    """Give a database with an assistant."""
    ground = Ground(sqlite_url)
    yield ground
    ground.close()


def test_nobody_asks_again_before_a_lease_may_run_out(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: one look for as long as every known lease holds, and the dead are reaped in the first one after it."""
    looks, now = [], [1000.0]
    monkeypatch.setattr(reaping, "monotonic", lambda: now[0])
    soonest_end = leases.soonest_end

    def counted(connection: Connection) -> float:
        looks.append(now[0])
        return soonest_end(connection)

    monkeypatch.setattr(leases, "soonest_end", counted)

    async def story() -> list[int]:
        bench = parts(ground, Provider(), lease=LEASE)
        reaper, found = Reaper(bench), []
        ground.boot("w1", LEASE)
        for seconds in (0.0, 100.0, 400.0):
            now[0] += seconds
            found.append(await reaper.reap(Valid()))  # type: ignore[arg-type]
        ground.submit()
        ground.take("w1")
        ground.end_lease()
        now[0] += LEASE
        found.append(await reaper.reap(Valid()))  # type: ignore[arg-type]
        await bench.close()
        return found

    assert asyncio.run(story()) == [0, 0, 0, 1]
    assert looks == [1000.0, 1500.0 + LEASE]
