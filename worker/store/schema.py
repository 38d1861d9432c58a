"""Migrations: bring a database to this version's schema, and refuse to work on another one."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from worker.errors import SchemaError
from worker.store.database import Database

_MIGRATIONS = Path(__file__).parent.parent / "migrations"
# Any number will do that nobody else takes on the same PostgreSQL database: "Runwright" in ASCII, the first 8 letters.
_LOCK = text(f"SELECT pg_advisory_xact_lock({int.from_bytes(b'Runwrigh')})")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def head() -> str:
    """Return the revision this code is written for."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise SchemaError("no migrations are installed with this package; install it again")
    return revision


def current(database: Database) -> str | None:
    """Return the revision the database is at, None where it has none of our tables."""
    with database.read() as connection:
        return _revision(connection)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def migrate(database: Database, to: str = "head") -> tuple[str | None, str]:
    """Apply what is missing in one transaction; returns the revisions before and after.

    Of two at once the second waits for the first, and then finds nothing to do. Raises SchemaError for a schema newer
    than this version's.
    """
    with database.write() as connection:
        if connection.dialect.name == "postgresql":  # SQLite's write lock is held from the beginning
            connection.execute(_LOCK)
        before = _revision(connection)
        _refuse_newer(before)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, to)
        return before, _revision(connection) or head()


def check(database: Database) -> None:
    """Raise SchemaError, with the command to run, unless the schema is exactly this version's."""
    found, wanted = current(database), head()
    if found == wanted:
        return
    if found is None:
        raise SchemaError("DATABASE_URL: the database has no Runwright tables; run `runwright migrate`")
    _refuse_newer(found)
    raise SchemaError(f"DATABASE_URL: the schema is {found}, this version needs {wanted}; run `runwright migrate`")


def _refuse_newer(found: str | None) -> None:
    """Raise SchemaError for a revision that this version does not know: a later one has made it."""
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise SchemaError(f"DATABASE_URL: the schema {found} is newer than this version ({head()}); upgrade Runwright")
