"""Versions of assistants: a changed configuration is a new row, an unchanged one is nothing."""

import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from worker.errors import UsageError
from worker.models import Assistant, Cap

_VERSIONS = select(Assistant.id, Assistant.name, Assistant.version, Assistant.config)
_NEWEST = _VERSIONS.where(Assistant.name == bindparam("name")).order_by(Assistant.version.desc()).limit(1)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an assistant."""

    id: str
    name: str
    version: int
    config: dict[str, Any]


def newest(connection: Connection, name: str) -> Version | None:
    """Return the newest version of an assistant, None where there is none of this name."""
    row = connection.execute(_NEWEST, {"name": name}).one_or_none()
    return Version(*row) if row else None


def require(connection: Connection, name: str) -> Version:
    """Return the newest version of an assistant; UsageError names those that there are."""
    version = newest(connection, name)
    if version is None:
        known = ", ".join(one.name for one in all_newest(connection)) or "none yet"
        raise UsageError(f"no assistant {name!r} (there is: {known}); `runwright assistants apply FILE` adds one")
    return version


def all_newest(connection: Connection) -> list[Version]:
    """Return the newest version of every assistant, by name."""
    last = select(Assistant.name, func.max(Assistant.version).label("version")).group_by(Assistant.name).subquery()
    joined = _VERSIONS.join(last, (last.c.name == Assistant.name) & (last.c.version == Assistant.version))
    return [Version(*row) for row in connection.execute(joined.order_by(Assistant.name))]


def apply(connection: Connection, name: str, config: dict[str, Any]) -> tuple[Version, bool]:
    """Make `config` the newest version; returns it and whether it is new."""
    last = newest(connection, name)
    if last and last.config == config:
        return last, False
    version = Version(f"asst_{uuid.uuid4().hex}", name, last.version + 1 if last else 1, config)
    row = {"id": version.id, "name": name, "version": version.version, "config": config}
    try:
        connection.execute(insert(Assistant), [row])
    except IntegrityError:
        raise UsageError(f"assistant {name!r} was applied by somebody else at this moment; apply it again") from None
    _cap(connection, name, config.get("max_active"))
    return version, True


def _cap(connection: Connection, name: str, max_active: int | None) -> None:
    """Let the newest version say how many of its runs, of all versions, may be in progress."""
    connection.execute(delete(Cap).where(Cap.assistant == name))
    if max_active is not None:
        connection.execute(insert(Cap).values(assistant=name, max_active=max_active))
