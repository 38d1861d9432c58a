"""The schema that this version works on: known by its revision, so that looking needs no Alembic."""

from sqlalchemy import Connection, column, inspect, select, table

from worker.errors import SchemaError
from worker.store.database import Database
from worker.urls import without_secret

REVISIONS = ("0001", "0002", "0003", "0004", "0005")
"""Those of worker/migrations/versions/, the first one first."""

_VERSION = table("alembic_version", column("version_num"))


def head() -> str:
    """Return the revision this code is written for."""
    return REVISIONS[-1]


def current(database: Database) -> str | None:
    """Return the revision the database is at, None where it has none of our tables.

    A SQLite file that is not there is not made: a typo in its path would leave one behind.
    """
    if database.file is not None and not database.file.exists():
        return None
    with database.read() as connection:
        return revision(connection)


def revision(connection: Connection) -> str | None:
    """Return the same, seen from a transaction."""
    if not inspect(connection).has_table(_VERSION.name):
        return None
    return connection.execute(select(_VERSION.c.version_num)).scalar()


def check(database: Database) -> None:
    """Raise SchemaError, with the command to run, unless the schema is exactly this version's."""
    found, wanted = current(database), head()
    if found == wanted:
        return
    if found is None:
        where = without_secret(database.url)
        raise SchemaError(f"DATABASE_URL: no Runwright tables in {where}; run `runwright migrate`")
    refuse_newer(found)
    raise SchemaError(f"DATABASE_URL: the schema is {found}, this version needs {wanted}; run `runwright migrate`")


def refuse_newer(found: str | None) -> None:
    """Raise SchemaError for a revision that this version does not know: a later one has made it."""
    if found is not None and found not in REVISIONS:
        raise SchemaError(f"DATABASE_URL: the schema {found} is newer than this version ({head()}); upgrade Runwright")
