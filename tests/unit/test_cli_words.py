"""What the command line says of runs and processes, without a database."""

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from tasks.bulk import Change
from tasks.cli.change_commands import changed
from tasks.cli.following import Screen
from tasks.cli.run_tables import run_details, runs_table
from tasks.cli.stack import Stack
from tasks.cli.status_commands import _lines
from tasks.cli.tables import batches_table
from tasks.cli.timeline import timeline
from tasks.cli.waiting import waits_for
from tests.servers import wait_until
from worker.errors import RunwrightError
from worker.lifecycle import Status
from worker.store.batches import Progress
from worker.store.overview import Overview, WorkerView
from worker.store.reading import RunView
from worker.watching.telling import RunEvent

AT = datetime(2026, 11, 23, tzinfo=UTC)
CALL = {"name": "pay", "arguments": "{}", "output": None, "status": "asked", "error": None, "call_id": "c1"}
ASKED = {
    **CALL,
    "seconds": None,
    "question": "approval",
    "decision": None,
    "decided_by": None,
    "reason": None,
    "hosted": False,
}
VIEW = RunView(
    id="3b0c7c2e-f6a5-4c1e-9d7a-0a4f6a6d9a11",
    thread_id="thread_8bae1ea166d04f9c96b852e391d12215",
    assistant="careful",
    assistant_version=1,
    batch_id=None,
    queue="default",
    priority=5,
    status=Status.REQUIRES_ACTION,
    output_text=None,
    error=None,
    attempts=1,
    max_attempts=3,
    tool_calls=[ASKED],
    usage={"input_tokens": 1, "output_tokens": 1},
    cost_usd=0.5,
    created_at=AT,
    started_at=AT,
    finished_at=None,
    cancel_requested_at=None,
    metadata={},
    provider_ids=[],
    unknown_steps=0,
)


def drawn(shown: RenderableType, width: int = 160) -> str:
    """Return what a terminal of this width shows."""
    written = io.StringIO()
    Console(file=written, width=width).print(shown)
    return written.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("asked", {"question": "approval", "tools": ["pay"]}, "a person is asked to approve: pay"),
        ("asked", {"question": "in_doubt", "tools": ["pay"]}, "a person is asked what these calls have come to: pay"),
        ("parked", {}, "waits for a person; no worker holds it"),
        ("hosted_calls", {"tools": ["file_search"], "calls": ["fs_1"]}, "the provider has run file_search"),
        ("approved", {"call_id": "c1", "tool": "pay", "by": "ann"}, "ann approved pay (c1)"),
        ("denied", {"call_id": "c1", "tool": "pay", "by": "ann", "reason": "dear"}, "ann denied pay (c1): dear"),
        ("answered", {"call_id": "c1", "tool": "pay", "by": "ann"}, "ann said what has come of pay (c1)"),
        ("cancel_requested", {}, "a cancel was asked for"),
        ("cancelling", {}, "the cancel is being carried out"),
        ("reopened", {}, "reopened"),
        ("reopened", {"start_over": True}, "reopened, from the start if need be"),
    ],
)
def test_what_happens_is_told_in_words(name: str, data: dict[str, Any], words: str) -> None:
    """Expected: a sentence with who and why; no raw event data."""
    event = {"at": AT, "name": name, "attempt": 1, "worker": None, "data": data}
    assert drawn(timeline(VIEW, [event], [])).rstrip().endswith(f"  {words}")


def test_a_run_says_that_it_waits_for_a_person() -> None:
    """Expected: the command that lists the question; nothing once it is decided, cancelled or ended."""
    assert "waits for a person: `runwright approvals list`\n" in drawn(run_details(VIEW))
    doubt = replace(VIEW, tool_calls=[{**ASKED, "question": "in_doubt"}])
    assert waits_for(doubt) == "waits for a person: `runwright tools in-doubt`"
    assert waits_for(replace(VIEW, tool_calls=[{**ASKED, "decision": "approved"}])) is None
    assert waits_for(replace(VIEW, cancel_requested_at=AT)) is None
    assert waits_for(replace(VIEW, status=Status.FAILED)) is None


def test_a_call_of_the_providers_is_marked() -> None:
    """Expected: its name says whose it is, beside a call of our own that does not."""
    hosted = {**ASKED, "name": "code_interpreter", "question": None, "status": "completed", "hosted": True}
    lines = drawn(run_details(replace(VIEW, tool_calls=[hosted, ASKED]))).splitlines()
    assert [line.strip().split("  ")[0] for line in lines if "{}" in line] == [
        "code_interpreter (the provider's)",
        "pay",
    ]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status.CANCELLED, "cancelled"),
        (Status.COMPLETED, "completed"),
        (Status.IN_PROGRESS, "in_progress, asked to cancel"),
    ],
)
def test_a_cancel_that_is_still_to_be_carried_out_says_so(status: Status, words: str) -> None:
    """Expected: a run that goes on for a moment does not read as if nothing had been asked of it."""
    assert changed(Change.CANCEL, {"id": "r", "status": status}) == f"run r: {words}"
    assert changed(Change.RETRY, {"id": "r", "status": Status.QUEUED}) == "run r: queued"


def test_a_step_that_is_said_anew_begins_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Expected: also in a file, where nothing else breaks what the model says."""
    screen = Screen()
    for text, restart in (("Calcul", False), ("Calculated.", True)):
        screen.show(
            RunEvent(
                id="1-0-0", kind="text", status=Status.IN_PROGRESS, attempt=1, offset=0, text=text, restart=restart
            )
        )
    assert capsys.readouterr().out == "Calcul\nCalculated."


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_list_of_runs_keeps_ids_and_times_whole(width: int) -> None:
    """Expected: what is copied stands on one line also in a narrow terminal, which has fewer columns."""
    shown = drawn(runs_table([VIEW], width), width)
    assert VIEW.id in shown
    assert "11-23 00:00:00" in shown
    assert ("requires_action" in shown, "cost" in shown, "thread" in shown) == (True, width > 100, width > 80)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_list_of_batches_keeps_ids_and_times_whole(width: int) -> None:
    """Expected: the same of batches; how far each is stands there also in a narrow terminal."""
    batch = Progress("batch_" + 32 * "0", "clerk", AT, 2, 1, {Status.COMPLETED: 1}, 1, 1, 0.5, None, None)
    shown = drawn(batches_table([batch], width), width)
    assert batch.id in shown
    assert "11-23 00:00:00" in shown
    assert ("1 completed" in shown, "cost" in shown, "assistant" in shown) == (True, width > 100, width > 80)


@pytest.mark.parametrize("width", [80, 160])
def test_a_timeline_keeps_the_ids_whole_that_support_asks_for(width: int) -> None:
    """Expected: each on one line also in a narrow terminal; a day that is not the first one is told."""
    worker, response, request = "80c20f09-ff39-4656-9d56-4a99a555ec14", f"resp_{50 * '0'}", f"req_{32 * '0'}"
    data = {"step": 0, "provider_id": response, "request_id": request}
    events = [
        {"at": AT, "name": "claimed", "attempt": 2, "worker": worker, "data": {}},
        {"at": AT + timedelta(days=1), "name": "created", "attempt": 2, "worker": worker, "data": data},
    ]
    shown = drawn(timeline(VIEW, events, []), width)
    assert all(whole in shown for whole in (worker, response, request, "2026-11-24"))
    assert "attempt 2 is taken by worker" in shown


@pytest.mark.parametrize(("leases", "words"), [((-5.0,), "5 s ago"), ((-5.0, 9.0), "5 s ago; others take its runs")])
def test_a_dead_worker_has_heirs_only_where_another_lives(leases: tuple[float, ...], words: str) -> None:
    """Expected: nobody is told that others go on where there are none."""
    workers = [WorkerView(f"w{n}", "n", 1, ["q"], 0, 10, lease, AT, None) for n, lease in enumerate(leases)]
    found = Overview(AT, [], [], [], workers, {}, [], AT, {}, None)
    assert f"worker n: its lease ran out {words}" in list(_lines(found))


@pytest.fixture
def ended(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that starts a module with this code and returns what is said of its end."""
    stack = Stack(tmp_path, {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": ""})

    def run(code: str) -> str:
        (tmp_path / "part.py").write_text(code)
        stack.start("worker", "part")
        wait_until(lambda: stack._children["worker"].poll() is not None, "the end of the process", 20)
        with pytest.raises(RunwrightError) as caught:
            stack.check("worker")
        return str(caught.value)

    return run


def test_the_end_of_a_part_is_told_and_its_log_kept(ended: Callable[[str], str], tmp_path: Path) -> None:
    """Expected: the last line for an exit code, the signal's name for a kill; a further start adds to the log."""
    log = tmp_path / "logs" / "worker.log"
    assert ended("import sys\nsys.exit('no luck')") == f"the worker ended with code 1: no luck (all of it in {log})"
    killed = ended("import os\nprint('busy', flush=True)\nos.kill(os.getpid(), 9)")
    assert killed == f"the worker was killed by SIGKILL; its log is {log}"
    assert ended("raise SystemExit(3)") == f"the worker ended with code 3: it said nothing (all of it in {log})"
    assert log.read_text() == "no luck\nbusy\n"
