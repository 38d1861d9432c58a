"""The database's schema from the shell."""

import typer

from tasks.cli.output import JsonOption, emit, say
from worker.settings import Settings
from worker.store import migrating
from worker.store.database import Database

app = typer.Typer()


@app.command()
def migrate(as_json: JsonOption = False) -> None:
    """Create the tables in DATABASE_URL, or bring them to this version's schema."""
    before, after = migrating.migrate(Database(Settings.from_env().database_url))
    if as_json:
        emit({"before": before, "after": after})
    else:
        say(f"the schema is {after}" + ("" if before == after else f"; it was {before or 'not there'}"))
