"""Connections and transactions, the same on SQLite (WAL) and PostgreSQL."""

import select
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event, make_url
from sqlalchemy.exc import (
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from worker.urls import without_secret

_READ = "runwright_read"
_IDLE_MS = 10_000  # between two statements of one of our transactions there are milliseconds
_TRIP_MS = 60_000  # from the first write of a pipeline to the commit there are seconds, where it has many megabytes
_TRIPS = "runwright_trips"
_ENDS_TRANSACTIONS = 170_000  # the first version with transaction_timeout
_BUSY = 30.0  # seconds to wait for a lock of SQLite's
UNUSABLE = "DATABASE_URL: the database cannot be used: "
# A database that is busy or away. InternalError is also what a standby says that a failover has not yet promoted.
PASSING = (OperationalError, InterfaceError, InternalError, PoolTimeout)


def explain(error: SQLAlchemyError) -> str:
    """Return in one line, without a password, what the database said."""
    said = str(error.orig) if isinstance(error, DBAPIError) and error.orig else str(error)
    return UNUSABLE + without_secret(" ".join(said.split()))


@contextmanager
def one_trip(connection: Connection) -> Iterator[None]:
    """Send what is executed inside, none of which returns rows, without waiting for each answer; errors may come last.

    On PostgreSQL this is psycopg's pipeline: a commit makes half as many round trips, each of which waits for the
    network and for a core. SQLite has none, and what a caller's own connection keeps to is the caller's.
    """
    # After an error psycopg takes for prepared what the server has skipped, until the whole transaction is rolled back.
    if connection.in_nested_transaction() or not connection.info.get(_TRIPS):
        yield
        return
    driver: Any = connection.connection.driver_connection
    drivers_own = connection.dialect.loaded_dbapi.Error
    try:
        with driver.pipeline():
            # Between two statements of a pipeline the server waits as if one were under way: see _connect.
            driver.execute(f"SET LOCAL transaction_timeout = {_TRIP_MS}")
            yield
    except drivers_own as error:  # one that comes last, when no statement is under way that SQLAlchemy sees fail
        raise DBAPIError.instance(None, None, error, drivers_own, hide_parameters=True) from error


class Database:
    """One pool of connections; write() and read() are its transactions."""

    def __init__(self, url: str, pool_size: int = 5) -> None:
        """Open lazily: no connection is made until the first transaction."""
        self.url = url
        file = make_url(url).database if url.startswith("sqlite") else None
        self.file = Path(file) if file else None
        self.engine = _sqlite(url, pool_size) if url.startswith("sqlite") else _postgresql(url, pool_size)
        # To begin and to roll back would be two round trips, and is no snapshot: each statement has its own either way.
        reading = {_READ: True} if url.startswith("sqlite") else {"isolation_level": "AUTOCOMMIT"}
        self._reading = self.engine.execution_options(**reading)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Commit at the end, roll back on an exception."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give what takes no write lock; on SQLite a snapshot, on PostgreSQL one for each statement."""
        with self._reading.connect() as connection:
            try:
                yield connection
            except DBAPIError:
                # No transaction is rolled back, with which psycopg forgets what a migration may have made void.
                connection.invalidate()
                raise

    def close(self) -> None:
        """Close what is idle in the pool."""
        self.engine.dispose()


# hide_parameters: an error that is logged must not hold the texts that people send.
def _postgresql(url: str, pool_size: int) -> Engine:
    engine = create_engine(url, pool_size=pool_size, max_overflow=0, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, record: Any) -> None:
        # A worker that is frozen inside a transaction keeps its locks, and with a thread's or its own row everybody
        # else waits: the server ends such a transaction, whose unit is repeated when the worker wakes.
        connection.autocommit = True
        connection.execute(f"SET idle_in_transaction_session_timeout = {_IDLE_MS}")
        # Nor is a transaction idle while the server cannot send the rest of a long answer.
        connection.execute(f"SET tcp_user_timeout = {_IDLE_MS}")
        # Each of our statements takes milliseconds at most; compiling one that is costed high would take a hundred.
        connection.execute("SET jit = off")
        connection.autocommit = False
        # A server before 17 cannot end what is frozen in a pipeline, and gets none.
        record.info[_TRIPS] = connection.info.server_version >= _ENDS_TRANSACTIONS

    @event.listens_for(engine, "checkout")
    def _checkout(connection: Any, _record: Any, _proxy: Any) -> None:
        # Nobody listens to an idle connection, so there is something to read only where the server has closed it, or is
        # about to. To ask it (pool_pre_ping) costs a round trip for each transaction.
        waiting = select.poll()
        waiting.register(connection.fileno(), select.POLLIN)
        if waiting.poll(0):
            raise DisconnectionError("the server has closed the connection")

    return engine


def _sqlite(url: str, pool_size: int) -> Engine:
    engine = create_engine(
        url, pool_size=pool_size, max_overflow=0, connect_args={"timeout": _BUSY}, hide_parameters=True
    )

    @event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin by itself: see _begin
        _use_wal(connection)
        for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "handle_error")
    def _call_a_mistake_one(context: ExceptionContext) -> None:
        # SQLite's driver has one name for wrong SQL, such as a missing column, and for a database that is busy or away.
        # What the driver says by itself, as of a value that is no text, has no code. A savepoint is gone where SQLite
        # has rolled back by itself, as after an error of the disk.
        error = context.original_exception
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        gone = str(error).startswith("no such savepoint")
        if isinstance(error, sqlite3.OperationalError) and code == sqlite3.SQLITE_ERROR and not gone:
            raise ProgrammingError(context.statement, None, error, hide_parameters=True) from error

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred transaction that reads first and then writes fails at once when another has written, whatever the
        # busy timeout; taking the write lock at the start waits its turn instead.
        reading = connection.get_execution_options().get(_READ)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """Keep the file's journal as a write-ahead log, which the file remembers once one connection has set it.

    Several that open a new file at once get in each other's way, and there the busy timeout does not hold: SQLite reads
    the header, then wants the file to itself, and a lock that is raised is refused at once (btree.c, BtreeBeginTrans).
    """
    give_up = time.monotonic() + _BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
            return
