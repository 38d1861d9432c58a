"""Servers to break and to start again: a Redis that comes back empty, a PostgreSQL that halts or crashes."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import redis

from tests import postgres
from tests.servers import Process, wait_until
from worker import embedded, urls

# No machine fails here, but the server does: what it has committed must at least have left its memory.
_DURABLE = ("fsync=off", "full_page_writes=off", "max_connections=300")


class Redis:
    """A server that keeps nothing: each start is empty."""

    def __init__(self, folder: Path) -> None:
        socket = folder / "valkey.sock"
        self.url = f"redis+socket://{quote(str(socket))}?virtual_host=0"
        settings = {"port": "0", "unixsocket": str(socket), "dir": str(folder), "appendonly": "no", "save": ""}
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        self._command = [str(embedded.server_binary()), *options]
        self._log = folder / "valkey.log"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = Process(self._command, self._log, os.environ)
        self._process.wait_for(self._answers, "Redis")

    def kill(self) -> None:
        """End it as `kill -9` does, with all that it held."""
        self._process.kill()

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(urls.redis_client_url(self.url)) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class Postgres:
    """A server whose processes can be halted or ended at once; committed rows are there again after a start."""

    def __init__(self, folder: Path, logs: Path) -> None:
        self._folder = folder
        programs, prefix, self._options = postgres.way_to_run(folder)
        initdb = [*prefix, str(programs / "initdb"), "-A", "trust", "-U", "postgres", "-E", "UTF8"]
        subprocess.run(
            [*initdb, "--no-sync", "--no-instructions", "-D", str(folder / "data")],
            check=True,
            cwd=folder,
            env=postgres.ENV,
            stdout=subprocess.DEVNULL,
            timeout=60,
            **self._options,
        )
        self._command = [*prefix, str(programs / "postgres"), "-D", str(folder / "data"), "-h", "", "-k", str(folder)]
        self._command += [part for setting in _DURABLE for part in ("-c", setting)]
        self._log = logs / "postgres.log"
        self.url = f"postgresql://postgres@/postgres?host={folder}"

    def start(self) -> None:
        """Start it and wait until it answers; after a crash it recovers first."""
        self._process = Process(self._command, self._log, postgres.ENV, cwd=self._folder, **self._options)
        self._process.wait_for(lambda: postgres.answers(self.url), "PostgreSQL")

    def halt(self) -> None:
        """Stop all its processes where they are: connections stay, nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let halted processes go on."""
        self._signal_all(signal.SIGCONT)

    def crash(self) -> None:
        """End it as `pg_ctl stop -m immediate` does: connections are cut, open transactions are lost."""
        self._process.send(signal.SIGQUIT)
        wait_until(lambda: self._process.popen.poll() is not None, "the end of PostgreSQL")
        self._process.kill()

    def kill(self) -> None:
        """End it for good, in whatever state it is."""
        self.go_on()
        self._process.stop(signal.SIGQUIT)

    def _signal_all(self, number: signal.Signals) -> None:
        # The server first, so that it starts no further process meanwhile; each child is a group of its own.
        for pid in (self._process.pid, *_children(self._process.pid)):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def _children(parent: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True, timeout=10)
    pairs = (line.split() for line in listed.stdout.splitlines())
    return [int(pid) for pid, ppid in pairs if int(ppid) == parent]


@contextmanager
def breakable_redis(folder: Path) -> Iterator[Redis]:
    """Run a Redis until the block ends."""
    server = Redis(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def breakable_postgres(logs: Path) -> Iterator[Postgres]:
    """Run a PostgreSQL until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        server = Postgres(folder, logs)
        server.start()
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
