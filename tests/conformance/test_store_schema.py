"""The schema: migrations make what the models say, and a database of another version is refused with the way out."""

import shutil
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from tests.conformance.ground import Ground
from worker.errors import SchemaError
from worker.models import Base
from worker.store import migrating, schema
from worker.store.database import Database

LATER = """
from alembic import op

revision, down_revision = "9999", {head!r}


def upgrade():
    op.execute("CREATE TABLE runwright_later (id INTEGER)")
"""


@pytest.fixture
def later_version(tmp_path: Path) -> Path:
    """Give the migrations of a version to come: ours and one more."""
    folder = Path(shutil.copytree(migrating.MIGRATIONS, tmp_path / "migrations"))
    (folder / "versions" / "9999_later.py").write_text(LATER.format(head=schema.head()))
    return folder


def come(monkeypatch: pytest.MonkeyPatch, later_version: Path) -> None:
    """Make this process the version to come."""
    monkeypatch.setattr(migrating, "MIGRATIONS", later_version)
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "9999"))


def test_the_revisions_are_known_without_alembic() -> None:
    """Expected: what the check goes by are the migrations, in their order."""
    walked = ScriptDirectory(migrating.MIGRATIONS).walk_revisions()
    assert tuple(reversed([script.revision for script in walked])) == schema.REVISIONS


def test_the_migrations_make_what_the_models_say(ground: Ground) -> None:
    """Expected: no difference in tables, columns or indexes between a migrated database and the models."""
    with ground.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_migrated_database_is_accepted(ground: Ground) -> None:
    """Expected: no complaint, and migrating once more changes nothing."""
    schema.check(ground.database)
    before = ground.everything()
    assert migrating.migrate(ground.database) == (schema.head(), schema.head())
    assert ground.everything() == before


def test_an_empty_database_is_refused(tmp_path: Path) -> None:
    """Expected: one line that names DATABASE_URL, what it says (a typo would go unseen) and the command to run.

    A file that is not there is not made by looking for it.
    """
    url = f"sqlite:///{tmp_path / 'new' / 'empty.db'}"
    database = Database(url)
    with pytest.raises(SchemaError, match=rf"^DATABASE_URL: no Runwright tables in {url}; run `runwright migrate`$"):
        schema.check(database)
    database.close()
    assert list(tmp_path.iterdir()) == []


def test_an_older_schema_is_refused_until_it_is_migrated(
    ground: Ground, later_version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expected: a later version names both revisions and the command; the command brings the database there."""
    older = schema.head()
    ground.submit()
    come(monkeypatch, later_version)
    with pytest.raises(SchemaError, match=rf"the schema is {older}, .* needs 9999; run `runwright migrate`$"):
        schema.check(ground.database)
    assert migrating.migrate(ground.database) == (older, "9999")
    schema.check(ground.database)
    assert ground.holder() is not None


def test_a_newer_schema_is_refused(ground: Ground, later_version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: this version neither works on nor migrates what a later one has changed; the way out is to upgrade."""
    with monkeypatch.context() as later:
        come(later, later_version)
        migrating.migrate(ground.database)
    for refusing in (schema.check, migrating.migrate):
        with pytest.raises(SchemaError, match=r"9999 is newer than this version .*; upgrade Runwright$"):
            refusing(ground.database)
    assert schema.current(ground.database) == "9999"


def test_a_migration_that_fails_leaves_nothing(
    ground: Ground, later_version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expected: the tables made before the failure are gone and the revision is the old one, on SQLite as well."""
    older = schema.head()
    file = later_version / "versions" / "9999_later.py"
    file.write_text(file.read_text() + '    op.execute("CREATE TABLE runwright_runs (id INTEGER)")\n')
    come(monkeypatch, later_version)
    with pytest.raises(Exception, match=r"runwright_runs.* already exists"):
        migrating.migrate(ground.database)
    assert schema.current(ground.database) == older
    with ground.database.read() as connection, pytest.raises(Exception, match=r"no such table|does not exist"):
        connection.execute(text("SELECT * FROM runwright_later"))
