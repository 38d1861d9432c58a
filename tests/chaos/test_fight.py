"""`make chaos` in its small form, on both databases; TEST_CHAOS=1 asks for it, as it takes longer than a test may."""

import os
from pathlib import Path

import pytest
from rich.console import Console

from tests.chaos.__main__ import fight, options, report
from worker.producer import producer

SMALL = ["--runs=200", "--kills=10", "--workers=4", "--lease=1", "--latency=0.1:0.4", "--minutes=4"]


@pytest.mark.skipif("TEST_CHAOS" not in os.environ, reason="takes a minute; TEST_CHAOS=1 runs it")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
def test_nothing_is_lost_and_nothing_happens_twice_under_fire(database: str, tmp_path: Path) -> None:
    """Kills, hand-overs, freezes and lost servers cost time only; every kind of fault did happen."""
    producer.cache_clear()
    found = fight(options([*SMALL, "--database", database]), tmp_path, lambda *_: None)
    assert report(found, Console()), found["faults"]
    outages = ["database halts", "database crashes"] if database == "postgresql" else []
    assert all(found[kind] for kind in ["kills", "hand-overs", "freezes", "Redis losses", *outages])
