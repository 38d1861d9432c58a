"""`up` and `demo`: everything on this machine, started and stopped with the command."""

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from tasks import batches
from tasks.cli import stack
from tasks.cli.assistant_commands import apply_file
from tasks.cli.output import ERR, OUT, JsonOption, dollars, emit, note, number
from tasks.cli.progress import watch
from tasks.cli.stack import Stack
from tasks.cli.tables import progress_json, results_table
from worker import urls
from worker.broker.wire import celery_queue
from worker.errors import UsageError
from worker.producer import Producer
from worker.settings import Settings, environment

SAMPLES = Path("samples")
ASSISTANTS = Path("assistants.yaml")
ASSISTANT = "clerk"
QUEUE = "demo"
PROMPT = (
    "If this document is an invoice, compute its total including VAT and look up its supplier in the table "
    "suppliers.csv; then summarise it in one sentence."
)


@dataclass(frozen=True, slots=True)
class _Job:
    """What the demo asks, and of which assistant."""

    file: Path
    assistant: str
    prompt: str
    model: str | None
    live: bool
    as_json: bool


app = typer.Typer()


@app.command()
def up() -> None:
    """Start an embedded server, a worker and the scheduler, and stop them with Ctrl-C.

    Without OPENAI_API_KEY the provider is the simulator. REDIS_URL and DATABASE_URL are used where they are set.
    """
    settings = Settings.from_env()
    simulate = settings.openai_api_key is None
    note("starting …")
    with stack.running(settings.home, environment(), simulate=simulate) as running:
        for line in _where(running, simulate=simulate):
            OUT.print(line, soft_wrap=True)
        OUT.print("ready; stop with Ctrl-C. In another terminal: runwright submit --assistant NAME TEXT --wait")
        try:
            with running.interrupts.breaking():
                _stay(running)
        except KeyboardInterrupt:
            note("stopping …")


def _stay(running: Stack) -> NoReturn:
    while True:
        running.check()
        time.sleep(0.5)


@app.command()
def demo(
    *,
    live: Annotated[bool, typer.Option("--live", help="Use OPENAI_*, REDIS_URL and DATABASE_URL.")] = False,
    model: Annotated[
        str | None, typer.Option(help="Model to use in place of the one in the file of assistants.")
    ] = None,
    assistants: Annotated[Path, typer.Option(metavar="FILE", help="Assistants to bring in.")] = ASSISTANTS,
    assistant: Annotated[str, typer.Option(help="The one of them that is asked.")] = ASSISTANT,
    prompt: Annotated[str, typer.Option(help="What to do with each document.")] = PROMPT,
    as_json: JsonOption = False,
) -> None:
    """Run the main job over samples/: submit a batch, watch it, show what came out.

    Without --live it uses the simulator and embedded servers, whatever the environment holds.
    """
    if not (SAMPLES.is_dir() and assistants.is_file()):
        raise UsageError(f"{SAMPLES}/ and {assistants} are not here; run the demo in the repository's folder")
    chosen = {"RUNWRIGHT_TOOL_DATA": str(SAMPLES.resolve())}
    settings = Settings.from_env(environment(with_settings=live))
    if live and settings.openai_api_key is None:
        raise UsageError("OPENAI_API_KEY: not set; --live needs it, the demo without --live needs nothing")
    home = settings.home / "demo"
    note(_promise(live=live))
    environ = {**environment(with_settings=live), **chosen}
    with stack.running(home, environ, simulate=not live, queues=celery_queue(QUEUE)) as running:
        for line in _where(running, simulate=not live):
            note(line)
        with running.interrupts.breaking():
            completed = _main_job(running, _Job(assistants, assistant, prompt, model, live, as_json))
        note("stopping what was started …")
    raise typer.Exit(0 if completed else 1)


def _promise(*, live: bool) -> str:
    if live:
        return "Runwright demo on your provider: OPENAI_*, REDIS_URL and DATABASE_URL are used where they are set."
    return "Runwright demo on the simulator and embedded servers; keys, Redis and databases of yours are not touched."


def _where(running: Stack, *, simulate: bool) -> Iterator[str]:
    settings = running.settings()
    told = " (simulated: no real model answers)" if simulate else ""
    yield f"  provider  {settings.openai_base_url or 'OpenAI'}{told}"
    yield f"  broker    {urls.without_secret(settings.broker_url())}"
    yield f"  database  {urls.without_secret(settings.database_url)}"
    yield f"  logs      {running.logs}"


def _main_job(running: Stack, job: _Job) -> bool:
    """Submit the batch, watch it to its end and show it; returns whether every readable document has its answer."""
    producer = Producer(running.settings())
    apply_file(producer, job.file, **({"model": job.model} if job.model else {}))
    paths = batches.find([str(SAMPLES / "documents")])
    if job.live:
        _announce(producer, batches.estimate(producer, job.assistant, job.prompt, batches.read(paths)))
    batch_id = batches.submit(producer, job.assistant, job.prompt, batches.read(paths), queue=QUEUE)
    progress = watch(producer.database, batch_id, ERR, running.check)
    results = list(batches.results(producer.database, batch_id))
    folder = running.home / "results" / batch_id
    files_written = batches.export(producer.database, batch_id, folder)
    if job.as_json:
        told = {"results": [asdict(one) for one in results], "files": [str(file) for file in files_written]}
        emit({**progress_json(progress), **told})
    else:
        OUT.print(results_table(results, OUT.width))
        _say_where(running, batch_id, files_written)
    return progress.completed + progress.unreadable == progress.documents


def _announce(producer: Producer, estimate: batches.Estimate) -> None:
    """Say what it will cost before anything is sent, and ask where somebody can answer."""
    server = producer.settings.openai_base_url or "OpenAI"
    cost = dollars(estimate.cost_usd) if estimate.cost_usd is not None else "unknown (the model has no price here)"
    tokens = f"{number(estimate.input_tokens)} input and {number(estimate.output_tokens)} output tokens"
    note(f"{estimate.documents} runs on {server} with {estimate.model}: about {tokens}, cost about {cost}")
    note(f"({estimate.assumption})")
    if sys.stdin.isatty():
        typer.confirm("Go on?", default=True, abort=True, err=True)


def _say_where(running: Stack, batch_id: str, written: tuple[Path, ...]) -> None:
    for file in written:
        OUT.print(f"results   {file}", soft_wrap=True)
    OUT.print(f"database  {urls.without_secret(running.settings().database_url)}", soft_wrap=True)
    OUT.print(f"again     RUNWRIGHT_HOME={running.home} .venv/bin/runwright batch show {batch_id}", soft_wrap=True)
