"""A SQLite file: opened while others have it, and what its errors mean."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError, ProgrammingError

from worker.store.database import Database


def test_who_opens_a_new_file_waits_for_whoever_has_it_locked(tmp_path: Path) -> None:
    """Expected: the lock is waited for, although SQLite refuses this one at once; then the write succeeds."""
    holder = sqlite3.connect(tmp_path / "new.db", isolation_level=None)
    holder.execute("CREATE TABLE t (n INTEGER)")
    holder.execute("BEGIN IMMEDIATE")
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")

    def enter() -> None:
        with database.write() as connection:
            connection.exec_driver_sql("INSERT INTO t VALUES (1)")

    with ThreadPoolExecutor(1) as pool:
        entered = pool.submit(enter)
        with pytest.raises(TimeoutError):
            entered.result(timeout=0.3)
        holder.execute("COMMIT")
        entered.result(timeout=10)
    database.close()
    assert holder.execute("SELECT n FROM t").fetchall() == [(1,)]
    holder.close()


def test_what_is_no_text_is_a_mistake(tmp_path: Path) -> None:
    """Expected: what Python's driver says of it, with no code of SQLite's, and not to be repeated."""
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    with database.read() as connection, pytest.raises(ProgrammingError, match="decode"):
        connection.exec_driver_sql("SELECT CAST(X'ff' AS TEXT)").all()
    database.close()


def test_a_transaction_that_sqlite_has_ended_is_no_mistake(tmp_path: Path) -> None:
    """Expected: what may be repeated, since SQLite rolls back by itself after an error of the disk or of memory."""
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")

    def ended(connection: Connection) -> None:
        with connection.begin_nested():
            connection.exec_driver_sql("ROLLBACK")
            raise LookupError

    with pytest.raises(OperationalError, match="no such savepoint"), database.write() as connection:
        ended(connection)
    database.close()
