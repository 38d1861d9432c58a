"""The ground of every test: real servers, fresh databases, and an environment that leads to nobody's data."""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from psycopg import sql
from sqlalchemy.engine import make_url

from tests.nursery import Nursery
from tests.postgres import postgres
from tests.servers import REAPER, Simulator, Stack, is_foreign, simulator, stack, valkey
from worker import urls
from worker.store.database import Database
from worker.store.migrating import migrate


def pytest_configure(config: pytest.Config) -> None:
    """Clean the environment before any module of ours is imported, so that importing one is safe as well."""
    for variable in filter(is_foreign, list(os.environ)):
        del os.environ[variable]
    home = tempfile.mkdtemp(prefix="runwright-test-")
    os.environ.update(RUNWRIGHT_HOME=home, NO_PROXY="127.0.0.1,localhost", no_proxy="127.0.0.1,localhost")
    config.add_cleanup(lambda: shutil.rmtree(home))
    config.add_cleanup(REAPER.close)


@pytest.fixture
def clean_env(tmp_path: Path) -> dict[str, str]:
    """Return the environment for a child process: a home of its own, and no way to anybody's key or data."""
    return {**os.environ, "RUNWRIGHT_HOME": str(tmp_path / "home")}


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a PostgreSQL database whose user may create others: TEST_DATABASE_URL or one of our own."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield make_url(given).set(drivername="postgresql").render_as_string(hide_password=False)
        return
    with postgres(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """Return the name of a migrated database to copy."""
    with _postgres_database(postgres_server, "template0") as url:
        _migrate(url)
        yield str(make_url(url).database)


@pytest.fixture
def postgres_url(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """Return the URL of a fresh migrated PostgreSQL database."""
    with _postgres_database(postgres_server, postgres_template) as url:
        yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a migrated SQLite file to copy."""
    file = tmp_path_factory.mktemp("sqlite") / "template.db"
    _migrate(f"sqlite:///{file}")
    return file


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """Return the URL of a fresh migrated SQLite file."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'runwright.db')}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a fresh migrated database; the test runs once on each kind."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a Redis-protocol server: TEST_REDIS_URL or one of our own."""
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        yield urls.broker_url(_own_number(given))
        return
    with valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture
def redis_url(valkey_server: str) -> str:
    """Return the URL of an empty Redis database, as Celery takes it."""
    return _emptied(valkey_server)


@pytest.fixture(scope="session")
def simulator_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """Run one simulator for all tests."""
    with simulator(tmp_path_factory.mktemp("simulator"), os.environ, "--latency", "0.02:0.1") as server:
        yield server


@pytest.fixture(name="simulator")
def fresh_simulator(simulator_server: Simulator) -> Iterator[Simulator]:
    """Return the simulator with empty counters; a test may change its settings."""
    before = simulator_server.settings()
    simulator_server.reset()
    yield simulator_server
    simulator_server.settings(**before)


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Return what starts workers in a fraction of the time; tests of the start itself use `servers.CeleryWorker`."""
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


@pytest.fixture(name="stack", scope="module")
def module_stack(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    valkey_server: str,
    simulator_server: Simulator,
    nursery: Nursery,
) -> Iterator[Stack]:
    """Return fresh servers for all tests of a module; the parameter, given indirectly, is the kind of database."""
    folder = tmp_path_factory.mktemp("stack")
    simulator_server.reset()
    with contextlib.ExitStack() as servers:
        if request.param == "sqlite":
            template = request.getfixturevalue("sqlite_template")
            url = f"sqlite:///{shutil.copy(template, folder / 'runwright.db')}"
        else:
            names = request.getfixturevalue("postgres_server"), request.getfixturevalue("postgres_template")
            url = servers.enter_context(_postgres_database(*names))
        led = servers.enter_context(stack(folder, url, _emptied(valkey_server), simulator_server, nursery.start))
        servers.callback(nursery.kill_all)
        yield led


def _emptied(url: str) -> str:
    with redis.Redis.from_url(urls.redis_client_url(url)) as client:
        client.flushdb()
    return url


def _migrate(url: str) -> None:
    database = Database(url)
    try:
        migrate(database)
    finally:
        database.close()


@contextlib.contextmanager
def _postgres_database(server: str, template: str) -> Iterator[str]:
    name = f"runwright_test_{uuid.uuid4().hex}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    if "TEST_DATABASE_URL" not in os.environ:
        create += sql.SQL(" STRATEGY FILE_COPY")  # our own syncs nothing: a copy costs less than a way through the log
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(create)
        url = make_url(server).set(drivername="postgresql+psycopg", database=name)
        try:
            yield url.render_as_string(hide_password=False)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _own_number(url: str) -> str:
    """Give each process of pytest-xdist a database of its own, counted from the one that was given: tests empty it."""
    parts = urlsplit(url)
    number = int(parts.path.strip("/") or 0) + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return parts._replace(path=f"/{number}").geturl() if parts.scheme in {"redis", "rediss"} else url
