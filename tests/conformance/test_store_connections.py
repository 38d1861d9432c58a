"""Connections of the pool, and what becomes of those that PostgreSQL has closed meanwhile."""

import select
import socket
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import NotSupportedError

from tests.postgres import UNSAFE_AND_FAST, postgres
from tests.servers import wait_until
from worker.store import database as databases
from worker.store.database import Database


def test_a_connection_that_the_server_has_closed_is_not_used(postgres_url: str) -> None:
    """Expected: the next transaction has a new one and succeeds, as after a restart of the server."""
    database = Database(postgres_url)
    with database.write() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        idle = connection.connection.driver_connection
    assert isinstance(idle, psycopg.Connection)
    with psycopg.connect(make_url(postgres_url).set(drivername="postgresql").render_as_string(False)) as server:
        server.execute("SELECT pg_terminate_backend(%s)", (pid,))
    told = select.poll()
    told.register(idle.fileno(), select.POLLIN)
    wait_until(lambda: bool(told.poll(0)), "the server's word")
    with database.write() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != pid
    database.close()


def test_a_connection_is_used_again(postgres_url: str) -> None:
    """Expected: one connection for transactions one after another, without a question to the server in between."""
    database = Database(postgres_url)
    pids = set()
    for _ in range(3):
        with database.read() as connection:
            pids.add(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
    assert len(pids) == 1
    database.close()


def test_a_read_goes_on_after_a_migration(postgres_url: str) -> None:
    """Expected: a type that changed under a prepared statement fails one read at most, not all of its connection."""
    database, other = Database(postgres_url), Database(postgres_url)

    def look() -> int:
        with database.read() as connection:
            return len(connection.execute(text("SELECT next_seq FROM runwright_threads")).all())

    for _ in range(8):  # psycopg prepares what has come five times
        look()
    with other.write() as connection:
        connection.execute(text("ALTER TABLE runwright_threads ALTER next_seq TYPE bigint"))
    with pytest.raises(NotSupportedError, match="cached plan"):
        look()
    assert look() == 0
    database.close()
    other.close()


def test_who_is_frozen_while_it_reads_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: where a client takes no more of its answer, the server ends the transaction, as one that is idle."""
    monkeypatch.setattr(databases, "_IDLE_MS", 1000)
    with socket.create_server(("127.0.0.1", 0)) as free:  # of a socket in a folder the server asks nothing
        port = str(free.getsockname()[1])
    monkeypatch.setenv("PGPORT", port)
    with postgres(tmp_path, (*UNSAFE_AND_FAST, "listen_addresses=127.0.0.1", f"port={port}")):
        database, other = (Database("postgresql+psycopg://postgres@127.0.0.1/postgres") for _ in range(2))
        with other.write() as connection:
            connection.execute(text("CREATE TABLE t AS SELECT 1 AS n"))
        frozen = database.engine.connect()
        frozen.execute(text("SELECT n FROM t FOR UPDATE"))
        driver: Any = frozen.connection.driver_connection
        driver.pgconn.send_query(b"SELECT repeat('x', 1000000) FROM generate_series(1, 100)")
        with other.write() as connection:
            connection.execute(text("SET LOCAL lock_timeout = 15000"))
            assert connection.execute(text("SELECT n FROM t FOR UPDATE")).scalar_one() == 1
        frozen.invalidate()
        frozen.close()
        database.close()
        other.close()
