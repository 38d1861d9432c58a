"""The store's ground on each of the two databases."""

from collections.abc import Iterator

import pytest

from tests.conformance.ground import Ground


@pytest.fixture
def ground(database_url: str) -> Iterator[Ground]:
    """Give a fresh database with an assistant; the test runs once on SQLite and once on PostgreSQL."""
    ground = Ground(database_url)
    yield ground
    ground.close()
