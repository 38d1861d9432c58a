"""Time as the database tells it: one UTC column type and one clock for SQLite and PostgreSQL.

Leases and due times are compared by the database's clock alone, so that workers need not agree on the time.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, SQLColumnExpression, String, TypeDecorator, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime; on SQLite sortable text, as its own date functions write it."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column type of the database at hand."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(String(26))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Refuse naive datetimes: their meaning depends on the machine."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without a time zone; use datetime.now(UTC)")
        value = value.astimezone(UTC)
        if dialect.name != "sqlite":
            return value
        return value.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return an aware UTC datetime."""
        if value is None:
            return None
        if isinstance(value, str):
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        moment: datetime = value
        return moment.astimezone(UTC)


class from_now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """The database's time plus a number of seconds (a value or a column)."""

    type = UtcDateTime()
    inherit_cache = True
    name = "from_now"

    def __init__(self, seconds: float | SQLColumnExpression[float] = 0.0) -> None:
        super().__init__(literal(float(seconds)) if isinstance(seconds, int | float) else seconds)


@compiles(from_now, "postgresql")
def _postgresql(element: from_now, compiler: SQLCompiler, **kw: Any) -> str:
    # clock_timestamp() is volatile and would keep the planner off the index; now() stands still in a transaction.
    seconds = compiler.process(element.clauses, **kw)
    return f"(statement_timestamp() + make_interval(secs => CAST({seconds} AS double precision)))"


@compiles(from_now, "sqlite")
def _sqlite(element: from_now, compiler: SQLCompiler, **kw: Any) -> str:
    # unixepoch('subsec') is silently NULL before SQLite 3.42; strftime('%f') has milliseconds everywhere.
    seconds = compiler.process(element.clauses, **kw)
    return f"strftime('%Y-%m-%d %H:%M:%f', 'now', printf('%+.3f seconds', {seconds}))"
