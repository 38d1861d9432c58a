"""The one time of the database: what is written comes back, sorts as it should, and is never naive."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Dialect, column, create_engine, select, table
from sqlalchemy.dialects import postgresql, sqlite

from worker.dbtime import UtcDateTime, from_now

ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
# A day from the calendar's ends: the step to UTC would leave it.
MOMENTS = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=ZONES)
SQLITE: Dialect = sqlite.dialect()
POSTGRESQL: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy does not type it
TYPE = UtcDateTime()


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    """Give a SQLite in memory."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.mark.parametrize("dialect", [SQLITE, POSTGRESQL], ids=lambda dialect: dialect.name)
@given(moment=MOMENTS)
def test_what_is_written_comes_back_in_utc(dialect: Dialect, moment: datetime) -> None:
    """Expected: the same moment to the microsecond, in UTC, from any zone."""
    back = TYPE.process_result_value(TYPE.process_bind_param(moment, dialect), dialect)
    assert back == moment
    assert back is not None
    assert back.tzinfo is UTC


@given(st.lists(MOMENTS, min_size=2, max_size=6))
def test_sqlite_sorts_text_as_time(moments: list[datetime]) -> None:
    """Expected: the texts of later moments are greater, whatever zone they were told in."""
    texts = [TYPE.process_bind_param(moment, SQLITE) for moment in sorted(moments)]
    assert texts == sorted(texts)
    assert {len(text) for text in texts} == {26}


@pytest.mark.parametrize("dialect", [SQLITE, POSTGRESQL], ids=lambda dialect: dialect.name)
def test_a_naive_datetime_is_refused(dialect: Dialect) -> None:
    """Expected: an error that says what to use instead."""
    with pytest.raises(ValueError, match=r"use datetime\.now\(UTC\)"):
        TYPE.process_bind_param(datetime(2026, 11, 1), dialect)


@pytest.mark.parametrize("dialect", [SQLITE, POSTGRESQL], ids=lambda dialect: dialect.name)
def test_nothing_stays_nothing(dialect: Dialect) -> None:
    """Expected: None is written and read as None."""
    assert TYPE.process_result_value(TYPE.process_bind_param(None, dialect), dialect) is None


@given(st.floats(-10_000_000, 10_000_000))
def test_sqlite_adds_any_number_of_seconds(connection: Connection, seconds: float) -> None:
    """Expected: now plus the seconds within the milliseconds that SQLite keeps; NULL for no number."""
    now, then = connection.execute(select(from_now(), from_now(seconds))).one()
    assert abs((then - now).total_seconds() - seconds) < 0.01


def test_sqlite_adds_a_column_of_seconds(connection: Connection) -> None:
    """Expected: each row's own seconds, as a run's timeout is added to the claim."""
    connection.exec_driver_sql("CREATE TABLE waits (seconds FLOAT)")
    connection.exec_driver_sql("INSERT INTO waits VALUES (0.5), (90), (3600)")
    waits = table("waits", column("seconds"))
    rows = connection.execute(select(from_now(waits.c.seconds)).select_from(waits).order_by(waits.c.seconds))
    moments = list(rows.scalars())
    gaps = [round((later - earlier).total_seconds(), 1) for earlier, later in itertools.pairwise(moments)]
    assert gaps == [89.5, 3510.0]


def test_sqlite_agrees_with_the_clock(connection: Connection) -> None:
    """Expected: the database's time is UTC, not the local time of the machine."""
    assert abs(connection.execute(select(from_now())).scalar_one() - datetime.now(UTC)) < timedelta(seconds=5)


def test_postgresql_lets_the_planner_use_an_index() -> None:
    """Expected: statement_timestamp(): clock_timestamp() is volatile, now() stands still in a transaction."""
    text = str(select(from_now(30)).compile(dialect=POSTGRESQL))
    assert "statement_timestamp()" in text
    assert "clock_timestamp()" not in text
