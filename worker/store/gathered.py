"""Writes that are gathered first, so that equal statements for many rows are one executemany."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Executable, Float, bindparam, update

from worker.dbtime import from_now
from worker.models import Base
from worker.store import many


class FromNow(NamedTuple):
    """A time as the database tells it when the row is written, so many seconds from then."""

    seconds: float = 0.0


NOW = FromNow()


class _Insert(NamedTuple):
    """Rows of a table that have the same columns."""

    table: type[Base]
    columns: tuple[str, ...]


class _Each(NamedTuple):
    """A statement that takes all values at once."""

    statement: Executable


class Gathered:
    """Statements in the order of their first use, each with its rows in the order in which they came."""

    __slots__ = ("writes",)

    def __init__(self) -> None:
        self.writes: dict[Executable | _Insert | _Each, list[Any]] = {}

    def update(self, table: type[Base], key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Update one row, found by its whole key; a FromNow among the values is the database's time."""
        times = tuple([name for name, value in values.items() if type(value) is FromNow])
        statement, names = _updating(table, tuple(key), tuple(values), times)
        row = dict(zip(names, (*key.values(), *values.values()), strict=True))
        for name in times:
            row[f"new_{name}"] = values[name].seconds
        self.put(statement, row)

    def insert(self, table: type[Base], values: dict[str, Any]) -> None:
        """Insert one row."""
        self.put(_Insert(table, tuple(values)), values)

    def put(self, statement: "Executable | _Insert", row: dict[str, Any]) -> None:
        """Run a statement of the caller's with this row's parameters."""
        self.writes.setdefault(statement, []).append(row)

    def each(self, statement: Executable, value: Any) -> None:
        """Run a statement once for all values that come: its expanding parameter `all` takes them."""
        self.writes.setdefault(_Each(statement), []).append(value)

    def add(self, other: "Gathered") -> None:
        """Take over what another has gathered."""
        for statement, given in other.writes.items():
            self.writes.setdefault(statement, []).extend(given)

    def write(self, connection: Connection) -> None:
        """Write everything."""
        for statement, given in self.writes.items():
            if isinstance(statement, _Insert):
                many.insert(connection, statement.table, given)
            elif isinstance(statement, _Each):
                connection.execute(statement.statement, {"all": given})
            else:
                connection.execute(statement, given)


# Built once: making a statement anew costs more than running it.
@lru_cache(maxsize=512)
def _updating(
    table: type[Base], key: tuple[str, ...], values: tuple[str, ...], times: tuple[str, ...]
) -> tuple[Executable, tuple[str, ...]]:
    """Return the statement with the names of its parameters."""
    columns = {name: getattr(table, name) for name in (*key, *values)}
    seconds = {name: from_now(bindparam(f"new_{name}", type_=Float())) for name in times}
    new = {columns[name]: seconds.get(name, bindparam(f"new_{name}", type_=columns[name].type)) for name in values}
    statement = update(table).where(*(columns[name] == bindparam(f"key_{name}") for name in key)).values(new)
    return statement, (*(f"key_{name}" for name in key), *(f"new_{name}" for name in values))
