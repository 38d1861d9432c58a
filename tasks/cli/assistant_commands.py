"""Assistants from the shell: configuration in, versions out."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
import yaml

from tasks.cli.output import JsonOption, emit, note, say
from tools.registry import Registry
from worker.assistants.configuration import load
from worker.producer import Producer, producer
from worker.store import assistants
from worker.store.assistants import Version

app = typer.Typer(name="assistants", help="Named configurations that runs ask.", no_args_is_help=True)


@app.command()
def apply(file: Annotated[Path, typer.Argument(metavar="FILE")], as_json: JsonOption = False) -> None:
    """Bring in the assistants of a YAML file; a changed one becomes a new version."""
    applied = apply_file(producer(), file)
    if as_json:
        emit([{"name": one.name, "version": one.version, "changed": changed} for one, changed in applied])
        return
    for one, changed in applied:
        say(f"{one.name}: version {one.version}, {'new' if changed else 'unchanged'}")


def apply_file(door: Producer, file: Path, **changes: str) -> list[tuple[Version, bool]]:
    """Make the file's assistants, with these keys changed, the newest versions; raises UsageError."""
    found = load(file, Registry.load(door.settings.tool_modules).names(), door.settings.backend)
    stored = {name: config.model_dump(mode="json", exclude_none=True) | changes for name, config in found.items()}
    with door.database.write() as connection:
        return [assistants.apply(connection, name, config) for name, config in stored.items()]


@app.command("list")
def list_assistants(as_json: JsonOption = False) -> None:
    """List every assistant's newest version."""
    with producer().database.read() as connection:
        found = assistants.all_newest(connection)
    if as_json:
        emit([asdict(one) for one in found])
        return
    for one in found:
        say(f"{one.name}  version {one.version}  {one.config['model']}  {one.config.get('description', '')}".rstrip())
    if not found:
        note("no assistants; `runwright assistants apply FILE` adds some")


@app.command()
def show(name: Annotated[str, typer.Argument(metavar="NAME")], as_json: JsonOption = False) -> None:
    """Show an assistant's newest version."""
    with producer().database.read() as connection:
        version = assistants.require(connection, name)
    if as_json:
        emit(asdict(version))
        return
    note(f"version {version.version}")
    told = {"assistants": {version.name: version.config}}
    say(yaml.dump(told, Dumper=_Dumper, sort_keys=False, allow_unicode=True).rstrip())


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as people do."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
