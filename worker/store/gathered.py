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


class Gathered:
    """Statements in the order of their first use, each with its rows in the order in which they came."""

    def __init__(self) -> None:
        self.rows: dict[Executable | _Insert, list[dict[str, Any]]] = {}
        self.values: dict[Executable, list[Any]] = {}

    def update(self, table: type[Base], key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Update one row, found by its whole key; a FromNow among the values is the database's time."""
        times = tuple(name for name, value in values.items() if type(value) is FromNow)
        row = {f"key_{name}": value for name, value in key.items()}
        for name, value in values.items():
            row[f"new_{name}"] = value.seconds if type(value) is FromNow else value
        self.put(_updating(table, tuple(key), tuple(values), times), row)

    def insert(self, table: type[Base], values: dict[str, Any]) -> None:
        """Insert one row."""
        self.put(_Insert(table, tuple(values)), values)

    def put(self, statement: "Executable | _Insert", row: dict[str, Any]) -> None:
        """Run a statement of the caller's with this row's parameters."""
        self.rows.setdefault(statement, []).append(row)

    def each(self, statement: Executable, value: Any) -> None:
        """Run a statement once for all values that come: its expanding parameter `all` takes them."""
        self.rows.setdefault(statement, [])
        self.values.setdefault(statement, []).append(value)

    def add(self, other: "Gathered") -> None:
        """Take over what another has gathered."""
        for statement, rows in other.rows.items():
            self.rows.setdefault(statement, []).extend(rows)
        for statement, values in other.values.items():
            self.values.setdefault(statement, []).extend(values)

    def write(self, connection: Connection) -> None:
        """Write everything."""
        for statement, rows in self.rows.items():
            if isinstance(statement, _Insert):
                many.insert(connection, statement.table, rows)
            else:
                connection.execute(statement, rows or {"all": self.values[statement]})


# Built once: making a statement anew costs more than running it.
@lru_cache(maxsize=512)
def _updating(table: type[Base], key: tuple[str, ...], values: tuple[str, ...], times: tuple[str, ...]) -> Executable:
    columns = {name: getattr(table, name) for name in (*key, *values)}
    seconds = {name: from_now(bindparam(f"new_{name}", type_=Float())) for name in times}
    new = {columns[name]: seconds.get(name, bindparam(f"new_{name}", type_=columns[name].type)) for name in values}
    return update(table).where(*(columns[name] == bindparam(f"key_{name}") for name in key)).values(new)
