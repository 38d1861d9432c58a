"""Migrations: bring a database to this version's schema."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from worker.store import schema
from worker.store.database import Database

MIGRATIONS = Path(__file__).parent.parent / "migrations"
# Any number will do that nobody else takes on the same PostgreSQL database: "Runwright" in ASCII, the first 8 letters.
_LOCK = text(f"SELECT pg_advisory_xact_lock({int.from_bytes(b'Runwrigh')})")


def migrate(database: Database, to: str = "head") -> tuple[str | None, str]:
    """Apply what is missing in one transaction; returns the revisions before and after.

    Of two at once the second waits for the first, and then finds nothing to do. Raises SchemaError for a schema newer
    than this version's.
    """
    if database.file is not None:
        database.file.parent.mkdir(parents=True, exist_ok=True)
    with database.write() as connection:
        if connection.dialect.name == "postgresql":  # SQLite's write lock is held from the beginning
            connection.execute(_LOCK)
        before = schema.revision(connection)
        schema.refuse_newer(before)
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, to)
        return before, schema.revision(connection) or schema.head()
