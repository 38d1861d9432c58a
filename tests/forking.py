"""The process behind the nursery: it has imported everything once, and forks itself into workers and commands.

On stdin come JSON lines {"module", "argv", "env", "cwd", "files"}, the files being its stdin, stdout and stderr; on
stdout go {"pid"} for each, and {"ended": pid, "code"} with a signal's number as a negative code. It has no thread when
it forks, and when its stdin ends it kills what is left. A child leaves `serve` with its order, so that it runs and ends
as any main program does, exit handlers and threads included.
"""

import gc
import json
import os
import random
import runpy
import select
import signal
import sys
import threading
import warnings
from typing import Any

import celery.apps.worker
import celery.backends.redis
import celery.bin.celery
import celery.bin.worker
import celery.concurrency.thread
import celery.worker.consumer
import kombu.transport.redis
import psycopg
import sqlalchemy.dialects.postgresql.psycopg
import sqlalchemy.dialects.sqlite.pysqlite

import tasks.celery_tasks
import tasks.cli.approval_commands
import tasks.cli.assistant_commands
import tasks.cli.backend_commands
import tasks.cli.batch_commands
import tasks.cli.care_commands
import tasks.cli.change_commands
import tasks.cli.local
import tasks.cli.run_commands
import tasks.cli.schema_commands
import tasks.cli.status_commands
import tasks.cli.tool_commands
import tasks.cli.watch_commands
import worker.service
from tools.registry import Registry

# What is imported before the fork needs no import after it. worker.app is not among it, since it reads the environment,
# nor tasks.cli.main: what is to run must not be there yet.
PRELOADED = (
    celery.apps.worker,
    celery.backends.redis,
    celery.bin.celery,
    celery.bin.worker,
    celery.concurrency.thread,
    celery.worker.consumer,
    kombu.transport.redis,
    psycopg,
    sqlalchemy.dialects.postgresql.psycopg,
    sqlalchemy.dialects.sqlite.pysqlite,
    tasks.celery_tasks,
    tasks.cli.approval_commands,
    tasks.cli.assistant_commands,
    tasks.cli.backend_commands,
    tasks.cli.batch_commands,
    tasks.cli.care_commands,
    tasks.cli.change_commands,
    tasks.cli.local,
    tasks.cli.run_commands,
    tasks.cli.schema_commands,
    tasks.cli.status_commands,
    tasks.cli.tool_commands,
    tasks.cli.watch_commands,
    worker.service,
)
Order = dict[str, Any]


class Forking:
    """Forks and reaps."""

    def __init__(self) -> None:
        self._children: set[int] = set()
        self._rest = b""
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def serve(self) -> Order | None:
        """Return None when nobody is left to serve, and in each child what it has to be."""
        signal.set_wakeup_fd(self._wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            readable, _, _ = select.select([0, self._woken], [], [])
            if self._woken in readable:
                os.read(self._woken, 4096)
                self._reap()
            if 0 in readable:
                given = os.read(0, 1 << 16)
                if not given:
                    self._kill_all()
                    return None
                *lines, self._rest = (self._rest + given).split(b"\n")
                for line in lines:
                    if order := self._obey(json.loads(line)):
                        return order

    def _obey(self, word: dict[str, Any]) -> Order | None:
        assert threading.active_count() == 1
        pid = os.fork()
        if pid == 0:
            os.close(self._woken)
            os.close(self._wake)
            os.setsid()  # before anybody knows its id, by which its whole group is killed
            _say(pid=os.getpid())
            return dict(word)
        self._children.add(pid)
        return None

    def _reap(self) -> None:
        for pid in list(self._children):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._children.discard(pid)
                _say(ended=pid, code=os.waitstatus_to_exitcode(status))

    def _kill_all(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)


def _say(**word: int) -> None:
    os.write(1, json.dumps(word).encode() + b"\n")


def become(order: Order) -> None:
    """Turn this child into a process of its own and run the program that it was given."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, name in enumerate(order["files"]):
        file = os.open(name, os.O_CREAT | os.O_APPEND | os.O_WRONLY if number else os.O_RDONLY, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    sys.path[:1] = [order["cwd"], *filter(None, order["env"].get("PYTHONPATH", "").split(os.pathsep))]
    for action in filter(None, order["env"].get("PYTHONWARNINGS", "").split(",")):
        warnings.simplefilter(action)
    random.seed()  # else all workers would look in step
    sys.argv = order["argv"]
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    Registry.load()
    gc.collect()
    gc.freeze()
    if found := Forking().serve():
        become(found)
