"""Many rows as one bound value: JSON that the database itself turns into a table.

The text of a statement is the same whatever the number of rows, and the client binds one value instead of one for each
cell, which cost more than all else of a submit in bulk. Both databases read it, through any driver.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Connection, FromClause, String, bindparam, cast, column, func, select, true, type_coerce
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB

from worker.dbtime import UtcDateTime

T = TypeVar("T")
# SQLite takes 32,766 bound values in a statement and PostgreSQL 65,535.
_CHUNK = 1000
# PostgreSQL takes 256 MB of JSON in one value, and a document of a batch may have megabytes.
_LARGEST = 16_000_000
_MOMENT = UtcDateTime()
INSERT: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
Rows = Sequence[dict[str, Any]]
Built = dict[str, Any]
"""A statement for each kind of database."""


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Give as many at a time as may stand as bound values in a statement."""
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]


def built(build: Callable[[str], Any]) -> Built:
    """Build a statement over table() for each kind of database, once for all times that it is executed."""
    return {dialect: build(dialect) for dialect in INSERT}


def table(dialect: str, *columns: Any) -> FromClause:
    """Return the table of these columns that the rows become in a statement."""
    rows = bindparam("rows", type_=String)
    if dialect == "postgresql":
        named = [column(one.name, one.type) for one in columns]
        return func.jsonb_to_recordset(cast(rows, JSONB)).table_valued(*named).render_derived(with_types=True)
    row = func.json_each(rows).table_valued("value", name="given").c.value
    cells = [type_coerce(func.json_extract(row, f"$.{one.name}"), one.type).label(one.name) for one in columns]
    return select(*cells).subquery()


def execute(connection: Connection, statement: Built, rows: Rows) -> list[Any]:
    """Execute a statement over the table of these rows, which all name the same columns, and return what it returns."""
    found: list[Any] = []
    for text in _texts(connection, rows):
        result = connection.execute(statement[connection.dialect.name], {"rows": text})
        found += result if result.returns_rows else ()
    return found


def insert(connection: Connection, model: Any, rows: Rows, *, ignore: bool = False) -> None:
    """Insert rows; with `ignore` those that are there already stay as they are."""
    if rows:
        execute(connection, _inserting(model, tuple(rows[0]), ignore=ignore), rows)


@cache
def _inserting(model: Any, names: tuple[str, ...], *, ignore: bool) -> Built:
    def build(dialect: str) -> Any:
        # "WHERE true": SQLite would take the ON of ON CONFLICT for that of a join.
        rows = select(table(dialect, *(model.__table__.c[name] for name in names))).where(true())
        statement = INSERT[dialect](model.__table__).from_select(names, rows)
        return statement.on_conflict_do_nothing() if ignore else statement

    return built(build)


def _texts(connection: Connection, rows: Rows) -> Iterator[str]:
    """Give rows as JSON, in pieces that the database takes."""
    if not rows:
        return

    def moment(value: datetime) -> str:
        return str(_MOMENT.process_bind_param(value, connection.dialect))

    text = json.dumps(rows, ensure_ascii=False, default=moment)
    if len(text) <= _LARGEST or len(rows) == 1:
        yield text
        return
    middle = len(rows) // 2
    yield from _texts(connection, rows[:middle])
    yield from _texts(connection, rows[middle:])
