"""The kinds of values that settings take: each returns the value in its one form, or raises ValueError with advice."""

from pathlib import Path
from typing import Any

from worker import urls


def modules(value: Any) -> Any:
    """Return the names of modules in a text, separated by commas."""
    names = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
    if not all(isinstance(name, str) and all(map(str.isidentifier, name.split("."))) for name in names):
        raise ValueError("accepted are module names separated by commas, such as tools.mine,other.tools")
    return tuple(names)


def result_backend(value: str) -> str:
    """Return where Celery stores results: `redis`, `none` or a URL."""
    if value not in {"redis", "none"} and "://" not in value:
        raise ValueError("accepted are redis (the broker's server), none, or the URL of a Celery result backend")
    return urls.broker_url(value) if value.startswith(("redis", "unix:")) and value != "redis" else value


def address(value: str) -> str:
    """Return HOST:PORT, or off."""
    host, _, port = value.rpartition(":")
    if value != "off" and not (host and port.isascii() and port.isdecimal() and int(port) < 65_536):
        raise ValueError("accepted are HOST:PORT, such as 127.0.0.1:9808, or off")
    return value


def absolute(path: Path) -> Path:
    """Return the folder as an absolute path."""
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:  # ~name of a user that does not exist
        raise ValueError("accepted is the path of a folder") from error


def upper(value: Any) -> Any:
    """Return a text in capitals."""
    return value.upper() if isinstance(value, str) else value
