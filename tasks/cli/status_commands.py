"""The whole at a glance, and what holds queued runs back: status, pause, resume."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from tasks.cli.output import OUT, JsonOption, emit, number, pairs, say
from tasks.cli.tables import errors_table, queues_table, workers_table
from tasks.cli.waiting import NO_WORKER
from worker.care import maintenance
from worker.producer import producer
from worker.store import overview, pausing
from worker.store.overview import Overview
from worker.store.pausing import Kind

app = typer.Typer()

_ANSWERED_BY = "see `runwright approvals list` and `runwright tools in-doubt`"
_KindArgument = Annotated[Kind, typer.Argument(metavar="queue|assistant|batch")]
_NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Its name; of a batch, its id.")]


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Show queues, workers, pauses, questions to people, and the errors of the last hour."""
    with producer().database.read() as connection:
        found = overview.overview(connection)
    if as_json:
        emit(asdict(found))
        return
    if found.queues:
        OUT.print(queues_table(found.queues))
    if found.workers:
        OUT.print(workers_table(found.workers))
    if found.errors:
        OUT.print(errors_table(found.errors))
    for line in _lines(found):
        say(line)


def _lines(found: Overview) -> Iterator[str]:
    """Say what tables do not, the gravest first."""
    living = any(worker.lease_seconds > 0 for worker in found.workers)
    if not living:
        yield NO_WORKER
    for queue in found.queues:
        if queue.due and not queue.workers:
            yield f"queue {queue.queue}: {number(queue.due)} due runs, and no living worker serves it"
    for worker in found.workers:
        if worker.lease_seconds <= 0:
            heirs = "; others take its runs" if living else ""
            yield f"worker {worker.node}: its lease ran out {-worker.lease_seconds:.0f} s ago{heirs}"
    yield from _held_back(found)
    if found.questions:
        yield f"calls that wait for a person's answer: {pairs(found.questions)}; {_ANSWERED_BY}"
    if found.outbox:
        oldest = f"the oldest for {number(found.outbox_oldest_seconds)} s"
        yield f"ends that are still to be told: {pairs(found.outbox)}, {oldest}"
    if not found.errors:
        yield f"no errors since {found.errors_since:%Y-%m-%d %H:%M:%S} UTC"


def _held_back(found: Overview) -> Iterator[str]:
    for pause in found.pauses:
        reason = f": {pause.reason}" if pause.reason else ""
        yield f"paused: {pause.kind} {pause.name}, since {pause.created_at:%Y-%m-%d %H:%M:%S} UTC{reason}"
    for cap in found.caps:
        if cap.due and cap.active >= cap.max_active:
            most = f"{cap.active} runs in progress, of at most {cap.max_active}"
            yield f"held back: assistant {cap.assistant}, {most}; {number(cap.due)} due runs wait"


@app.command()
def pause(
    kind: _KindArgument,
    name: _NameArgument,
    reason: Annotated[str | None, typer.Option(help="Why; `runwright status` shows it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Begin no queued runs of a queue, an assistant or a batch; what was begun goes on."""
    with producer().database.write() as connection:
        new = pausing.pause(connection, kind, name, reason)
    _tell(kind, name, "paused" if new else "was paused already", as_json=as_json, paused=True)


@app.command()
def resume(kind: _KindArgument, name: _NameArgument, as_json: JsonOption = False) -> None:
    """Let the queued runs of what was paused begin again."""
    door = producer()
    ring = door.doorbell.ring  # where there is no broker, refused before anything is changed
    with door.database.write() as connection:
        pausing.resume(connection, kind, name)
    maintenance.ring_due(door.database, ring)
    _tell(kind, name, "resumed", as_json=as_json, paused=False)


def _tell(kind: Kind, name: str, what: str, *, as_json: bool, paused: bool) -> None:
    if as_json:
        emit({"kind": kind.value, "name": name, "paused": paused})
    else:
        say(f"{kind} {name}: {what}")
