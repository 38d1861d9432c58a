"""Looking after a house that runs: doctor and cleanup."""

from dataclasses import asdict
from typing import Annotated

import typer

from tasks.cli import errands
from tasks.cli.bar import bar
from tasks.cli.output import ERR, JsonOption, emit, note, say
from worker.care import doctor as doctoring
from worker.care import maintenance
from worker.care.doctor import Verdict
from worker.producer import producer
from worker.settings import Settings
from worker.store.database import Database

app = typer.Typer()

_SHOWN = 20
_NO_KEY = "OPENAI_API_KEY: not set, nor any RUNWRIGHT_KEY_…, so the provider was not asked"


@app.command()
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended, also while workers run.")] = False,
    provider: Annotated[
        bool, typer.Option("--provider/--no-provider", help="Ask the provider about runs that have ended.")
    ] = True,
    hours: Annotated[
        float, typer.Option(min=0, help="The provider is asked about runs that ended within so many hours.")
    ] = 24,
    as_json: JsonOption = False,
) -> None:
    """Prove what must hold in the tables and at the provider; exit code 1 when something is wrong."""
    settings = Settings.from_env()
    database = Database(settings.database_url)
    with ERR.status("tables") as status:
        verdicts = doctoring.examine(database, settings, fix=fix, tell=status.update)
    if provider and len(verdicts) > 1:  # no more is asked of the tables of another version
        verdicts.append(_at_the_provider(database, settings, hours, fix=fix))
    database.close()
    wrong = any(one.wrong for one in verdicts)
    if as_json:
        emit({"ok": not wrong, "checks": [asdict(one) for one in verdicts]})
    else:
        for one in verdicts:
            _tell(one, fix=fix)
    if wrong:
        raise typer.Exit(1)


def _at_the_provider(database: Database, settings: Settings, hours: float, *, fix: bool) -> Verdict:
    runs = doctoring.steps_of_ended_runs(database, hours) if settings.has_key else {}
    with bar("provider", len(runs)) as done:
        verdict = doctoring.at_the_provider(database, runs, errands.send, fix=fix, tell=lambda: done(1))
    if not settings.has_key:
        verdict.skipped = _NO_KEY
    return verdict


def _tell(verdict: Verdict, *, fix: bool) -> None:
    found = len(verdict.findings)
    say(f"{_mark(verdict):6} {verdict.name}{'; expected' if found or verdict.skipped else ''}: {verdict.holds}")
    for told in [verdict.skipped, *verdict.notes, f"{verdict.mended} mended" if verdict.mended else None]:
        if told:
            say(f"       {told}")
    for one in verdict.findings[:_SHOWN]:
        say(f"       {one.subject}  {one.told}".rstrip())
    if found > _SHOWN:
        say(f"       … {found} in all")
    todo = f"--fix {verdict.cure}" if verdict.cure and not fix else verdict.hint
    if found and todo:
        say(f"       → {todo}")


def _mark(verdict: Verdict) -> str:
    if verdict.skipped:
        return "skip"
    if verdict.findings:
        return "WRONG" if verdict.wrong else verdict.level
    return "fixed" if verdict.mended else "ok"


@app.command()
def cleanup(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much it would delete.")] = False,
    days: Annotated[
        float | None, typer.Option(min=0, help="Age in days; without it as set by RUNWRIGHT_*_DAYS.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Delete old events and, here and at the provider, conversations that no run has needed for long."""
    door = producer()
    with bar("conversations", maintenance.count_conversations(door.database, door.settings, days)) as done:
        cleaned = maintenance.clean(door.database, door.settings, errands.send, days=days, dry_run=dry_run, tell=done)
    for key in sorted(maintenance.lacking_keys(door.database, door.settings)):
        note(f"{key}: not set, so conversations that need it stay")
    if as_json:
        emit(asdict(cleaned))
        return
    would = "would delete" if dry_run else "deleted"
    say(f"{would} {cleaned.events} events and {cleaned.conversations} conversations")
    for code, count in cleaned.failed.items():
        note(f"{count} conversations are left for the next time: {code}")
