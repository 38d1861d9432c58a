"""The test ground itself: what the other tests stand on is real, fresh and cleaned up."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy import inspect

from tests.servers import ROOT, Simulator, is_foreign, simulator
from worker.settings import Settings
from worker.store.database import Database
from worker.store.schema import check
from worker.urls import redis_client_url


def test_the_environment_leads_to_nobody_s_data(clean_env: dict[str, str], tmp_path: Path) -> None:
    """Neither this process nor a child has a key, a database, a Redis or the developer's home."""
    for environ in (dict(os.environ), clean_env):
        assert [name for name in environ if is_foreign(name)] == ["RUNWRIGHT_HOME"]
    assert Settings.from_env(clean_env).database_url.startswith(f"sqlite:///{tmp_path}")
    assert not Settings.from_env().home.is_relative_to(ROOT)


def test_each_test_has_a_migrated_database(database_url: str) -> None:
    """The schema is this version's, and no row of another test is there."""
    database = Database(database_url)
    check(database)
    with database.write() as connection:
        tables = [name for name in inspect(connection).get_table_names() if name != "alembic_version"]
        counts = {name: connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar() for name in tables}
    database.close()
    assert counts
    assert not any(counts.values())


def test_postgresql_is_one_and_is_not_the_machine_s(postgres_server: str) -> None:
    """A real server of our own, on a socket that nobody else reaches, unless TEST_DATABASE_URL gives one."""
    with psycopg.connect(postgres_server) as connection:
        assert connection.info.server_version >= 130000
        if "TEST_DATABASE_URL" not in os.environ:
            row = connection.execute("SELECT current_setting('listen_addresses')").fetchone()
            assert row == ("",)


@pytest.mark.parametrize("_turn", [1, 2])
def test_redis_is_empty(redis_url: str, _turn: int) -> None:
    """No doorbell of another test rings here."""
    with redis.Redis.from_url(redis_client_url(redis_url)) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


@pytest.mark.parametrize("_turn", [1, 2])
def test_the_simulator_s_settings_go_back(simulator: Simulator, _turn: int) -> None:
    """It has counted nothing, and what a test changes holds for that test."""
    assert simulator.counters()["requests"] == 0
    assert simulator.settings()["seed"] == 0
    assert simulator.settings(latency="0.5:0.5", seed=3)["seed"] == 3


def test_the_simulator_ends_when_told(tmp_path: Path, clean_env: dict[str, str]) -> None:
    """SIGTERM is enough."""
    with simulator(tmp_path, clean_env) as server:
        assert server.process.stop() in {0, -signal.SIGTERM}


def test_what_a_killed_pytest_started_ends(tmp_path: Path) -> None:
    """The reaper sees that its writer is gone; the pipe closes when the last process that holds it has ended."""
    program = (
        "import os, pathlib, sys; from tests.servers import Process\n"
        "fd = int(sys.argv[2])\n"
        "Process(['sleep', '600'], pathlib.Path(sys.argv[1]), os.environ, pass_fds=[fd])\n"
        "print('started', flush=True); sys.stdin.read()"
    )
    reading, writing = os.pipe()
    arguments = [sys.executable, "-c", program, str(tmp_path / "log"), str(writing)]
    with (
        subprocess.Popen(
            arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[writing]
        ) as starter,
        os.fdopen(reading, "rb") as pipe,
    ):
        os.close(writing)
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"started\n"
        assert not select.select([pipe], [], [], 0)[0]
        starter.kill()
        assert select.select([pipe], [], [], 20)[0]
