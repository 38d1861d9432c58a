"""What the command line imports: each command its own module, and the list of them none."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main

from tasks.cli import running
from tasks.cli.main import COMMANDS
from tests.servers import ROOT
from worker.store import assistants
from worker.store.database import Database

# Who waits for a prompt should wait neither for what carries runs nor for what reads documents and migrates.
CARRIES = {"aiohttp", "celery", "httpx2", "kombu", "openai", "worker.engine"}
HEAVY = CARRIES | {"alembic", "bs4", "pypdf", "yaml"}
TELL = """
import atexit, sys
from tasks.cli.main import main
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
main()
"""
Imports = Callable[..., set[str]]


@pytest.fixture
def imports(clean_env: dict[str, str], tmp_path: Path, sqlite_url: str, redis_url: str) -> Imports:
    """Return a function that runs a command and returns the modules it has imported."""
    database = Database(sqlite_url)
    with database.write() as connection:
        assistants.apply(connection, "clerk", {"model": "gpt-6-luna"})
    database.close()
    env = {**clean_env, "REDIS_URL": redis_url, "DATABASE_URL": sqlite_url, "PYTHONPATH": str(ROOT)}

    def run(*arguments: str) -> set[str]:
        command = [sys.executable, "-c", TELL, *arguments]
        ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True)
        return set(ended.stderr.split())

    return run


def test_the_list_of_commands_imports_none_of_them(imports: Imports) -> None:
    """Expected: what draws the list, and nothing that a command needs."""
    found = imports("--help")
    assert "typer" in found
    assert not found & (HEAVY | {"pydantic", "redis", "sqlalchemy", "structlog", "tasks.cli.output"})


def test_submitting_imports_what_submitting_takes(imports: Imports) -> None:
    """Expected: the database and the doorbell; no provider's client, no engine, no Celery, no other command."""
    found = imports("submit", "--assistant", "clerk", "x")
    assert {"sqlalchemy", "redis", "tasks.cli.run_commands", "worker.broker.doorbell"} <= found
    assert not found & HEAVY
    assert {one for one in found if one.endswith("_commands")} == {"tasks.cli.run_commands"}


def test_the_list_says_what_the_commands_say() -> None:
    """Expected: every command of every module is in the list, with the first paragraph of its own help."""
    modules = {file.stem for file in (ROOT / "tasks" / "cli").glob("*_commands.py")} | {"local"}
    assert {listed.module for listed in COMMANDS.values()} == modules
    for name, listed in COMMANDS.items():
        help_ = running.command(name, listed.module).help
        assert help_.split("\n\n")[0].replace("\n", " ") == listed.help
    groups = [typer.main.get_group(sys.modules[f"tasks.cli.{module}"].app) for module in modules]
    assert {name for group in groups for name in ([group.name] if group.name else group.commands)} == set(COMMANDS)
