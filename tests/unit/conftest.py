"""What the unit tests share."""

from collections.abc import Iterator

import pytest

from tests.conformance.ground import Ground


@pytest.fixture
def ground(sqlite_url: str) -> Iterator[Ground]:
    """Give a database with an assistant, and a worker."""
    ground = Ground(sqlite_url)
    ground.boot()
    yield ground
    ground.close()
