"""The command `runwright` as a child process, tried as a new user would: what it prints, where, and its exit code."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.cli.main import main
from tests.nursery import Nursery
from worker.producer import producer
from worker.store import assistants
from worker.store.database import Database

ROOT = Path(__file__).parents[2]
ASSISTANTS = """assistants:
  clerk: {model: gpt-6-luna, tools: [calculate]}
  reader: {model: house-model}
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return the document on stdout, which must be all of it."""
        return json.loads(self.out)


Run = Callable[..., Ended]


@pytest.fixture
def env(clean_env: dict[str, str], redis_url: str) -> dict[str, str]:
    """Return an environment with a broker and no database yet."""
    return {**clean_env, "REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def bare(env: dict[str, str], tmp_path: Path, nursery: Nursery) -> Run:
    """Return a function that runs a command in an empty folder, without a schema."""

    def run(*arguments: str | bytes, stdin: bytes = b"", **changes: str) -> Ended:
        ended = nursery.run("tasks.cli.main", *arguments, env={**env, **changes}, cwd=tmp_path, stdin=stdin)
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


@pytest.fixture
def cli(bare: Run, env: dict[str, str], sqlite_url: str) -> Run:
    """Return the same with a migrated database and two assistants."""
    env["DATABASE_URL"] = sqlite_url
    database = Database(sqlite_url)
    with database.write() as connection:
        assistants.apply(connection, "clerk", {"model": "gpt-6-luna", "tools": ["calculate"]})
        assistants.apply(connection, "reader", {"model": "house-model"})
    database.close()
    return bare


@pytest.fixture
def inside(
    cli: Run,
    env: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Run]:
    """Return what `cli` is, in this process: a table of mistakes need not start an interpreter for each."""
    assert cli is not None
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **changes: str) -> Ended:
        producer.cache_clear()
        with monkeypatch.context() as patch:
            for name, value in {**env, **changes}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["runwright", *arguments])
            with pytest.raises(SystemExit) as caught:
                main()
        return Ended(int(caught.value.code or 0), *capfd.readouterr())

    yield run
    producer.cache_clear()


def refused(ended: Ended, *words: str) -> None:
    """Expect exit code 2 and one line on stderr that has these words."""
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert ended.err.startswith("runwright: ")
    assert len(ended.err.splitlines()) == 1
    for word in words:
        assert word in ended.err


def test_the_first_steps(bare: Run, tmp_path: Path) -> None:
    """Each step that is missing is named with its command; a second migrate and a second apply change nothing."""
    refused(bare("list"), "DATABASE_URL: no Runwright tables in sqlite:///", "; run `runwright migrate`")
    assert bare("migrate", "--json").json()["before"] is None
    again = bare("migrate", "--json").json()
    assert again["before"] == again["after"]
    refused(bare("submit", "--assistant", "clerk", "hi"), "no assistant 'clerk'", "runwright assistants apply FILE")
    (tmp_path / "a.yaml").write_text(ASSISTANTS)
    assert [one["changed"] for one in bare("assistants", "apply", "a.yaml", "--json").json()] == [True, True]
    (tmp_path / "a.yaml").write_text(ASSISTANTS.replace("house-model", "gpt-5"))
    applied = bare("assistants", "apply", "a.yaml", "--json").json()
    assert [(one["name"], one["version"], one["changed"]) for one in applied] == [
        ("clerk", 1, False),
        ("reader", 2, True),
    ]
    assert [one["config"]["model"] for one in bare("assistants", "list", "--json").json()] == ["gpt-6-luna", "gpt-5"]


def test_a_wrong_file_of_assistants_changes_nothing(inside: Run, tmp_path: Path) -> None:
    """Every mistake is a line of its own; the right assistants of the file are not applied either."""
    (tmp_path / "wrong.yaml").write_text("assistants:\n  new: {model: m}\n  clerk:\n    modle: m\n    tools: [nope]\n")
    ended = inside("assistants", "apply", "wrong.yaml")
    assert ended.code == 2
    assert [line.split(": ")[1] for line in ended.err.splitlines()] == [
        "wrong.yaml:3",
        "wrong.yaml:4",
        "wrong.yaml:5",
    ]
    refused(inside("assistants", "show", "new"), "no assistant 'new' (there is: clerk, reader)")


def test_a_run_from_submit_to_retry(cli: Run) -> None:
    """The JSON of submit and show has what the issue promises; cancel and retry answer with the status."""
    submitted = cli("submit", "--assistant", "clerk", "2 [red]+ 2", "--thread", "t", "--metadata", "a=b=c", "--json")
    assert submitted.code == 0
    run = submitted.json()
    assert (run["thread_id"], run["status"]) == ("t", "queued")
    shown = cli("show", run["id"], "--json", "--events").json()
    promised = {
        *("id", "thread_id", "assistant", "status", "output_text", "error", "attempts", "tool_calls", "usage"),
        *("cost_usd", "created_at", "started_at", "finished_at", "metadata"),
    }
    assert promised <= set(shown)
    assert shown["metadata"] == {"a": "b=c"}
    assert [event["name"] for event in shown["events"]] == ["submitted"]
    assert cli("cancel", run["id"], "--json").json() == [{"id": run["id"], "status": "cancelled"}]
    assert cli("watch", run["id"]).err.endswith("cancelled\n")
    assert "no worker" not in cli("watch", run["id"]).err  # it has ended: nobody waits
    assert [one["id"] for one in cli("list", "--status", "cancelled", "--json").json()] == [run["id"]]
    assert cli("list", "--status", "queued", "--json").json() == []
    assert cli("retry", run["id"], "--json").json() == [{"id": run["id"], "status": "queued"}]
    refused(cli("retry", run["id"]), "is still queued; only failed, cancelled, expired and incomplete runs")
    assert run["id"] in cli("list").out


def test_input_from_stdin_and_file(cli: Run, tmp_path: Path) -> None:
    """The same text by any way is the same run under the same key; other text under that key is refused."""
    (tmp_path / "note.md").write_text("grüße")
    ask = ("submit", "--assistant", "clerk", "--thread", "t", "--key", "k", "--json")
    ids = {cli(*ask, given, stdin="grüße".encode()).json()["id"] for given in ("grüße", "-", "@note.md")}
    assert len(ids) == 1
    refused(cli(*ask, "other"), "the idempotency key 'k' belongs to a run with other input")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("submit", "--assistant", "nope", "x"), ("nope", "clerk", "reader")),
        (("submit", "--assistant", "clerk", ""), ("input: empty",)),
        (("submit", "--assistant", "clerk", "@nowhere.txt"), ("nowhere.txt: there is no such file",)),
        (("submit", "--assistant", "clerk", "x", "--priority", "12"), ("priority 12: from 0 to 9",)),
        (("submit", "--assistant", "clerk", "x", "--queue", "Not A Queue"), ("queue 'Not A Queue'",)),
        (("submit", "--assistant", "clerk", "x", "--metadata", "ab"), ("--metadata 'ab': write it as NAME=VALUE",)),
        (("submit", "--assistant", "clerk", "x", "--timeout", "1"), ("--wait",)),
        (("show", "nope", "--json"), ("no run 'nope'; `runwright list` shows the newest",)),
        (("show", "\udcff"), ("not UTF-8",)),
        (("list", "--batch", "nope"), ("no batch 'nope'",)),
        (("batch", "show", "nope"), ("no batch 'nope'",)),
        (("batch", "submit", "--assistant", "clerk", "--prompt", "p", "nowhere"), ("nowhere: there is no such file",)),
        (("tools", "call", "nope"), ("no tool 'nope'; there are: calculate",)),
        (("tools", "call", "calculate", "{"), ("the arguments are not JSON",)),
        (("assistants", "apply", "nowhere.yaml"), ("nowhere.yaml: No such file",)),
    ],
)
def test_wrong_input_is_one_line(inside: Run, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    """Exit code 2, nothing on stdout, one line on stderr that says what, where and what to do."""
    refused(inside(*arguments), *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("frob",), ("No such command 'frob'", "`runwright --help`")),
        (("sbmit", "x"), ("Did you mean 'submit'?",)),
        (("assistants", "frob"), ("No such command 'frob'", "`runwright assistants --help`")),
        (("submit", "x"), ("Missing option '--assistant'", "`runwright submit --help`")),
        (("show",), ("Missing argument", "`runwright show --help`")),
        (("show", "--nope", "x"), ("No such option: --nope",)),
        (("list", "--status", "wat"), ("'--status'", "queued")),
        (("list", "--limit", "0"), ("'--limit'",)),
    ],
)
def test_wrong_usage_is_one_line(inside: Run, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    """The command line's own complaints look like ours, and say which help to ask for."""
    refused(inside(*arguments), *words)


@pytest.mark.parametrize("arguments", [(), ("assistants",)])
def test_a_command_that_is_not_named_gets_the_list(inside: Run, arguments: tuple[str, ...]) -> None:
    """Expected: the help, which nobody takes for a result: the exit code is 2."""
    ended = inside(*arguments)
    assert (ended.code, "Commands" in ended.out, ended.err) == (2, True, "")


def test_wrong_settings_are_one_line(inside: Run, tmp_path: Path) -> None:
    """Each names its variable; a password is never shown."""
    refused(inside("list", DATABASE_URL="mysql://me:hidden@h/d"), "DATABASE_URL")
    ended = inside("list", DATABASE_URL="postgresql://me:hidden@127.0.0.1:1/d")
    refused(ended, "DATABASE_URL: the database cannot be used: connection failed")
    assert "hidden" not in ended.err
    (tmp_path / "junk.db").write_text("no database, and long enough to be looked at as one" * 30)
    refused(inside("list", DATABASE_URL=f"sqlite:///{tmp_path}/junk.db"), "file is not a database")
    refused(inside("list", RUNWRIGHT_LEASES="3"), "RUNWRIGHT_LEASES", "did you mean RUNWRIGHT_LEASE?")
    refused(inside("submit", "--assistant", "clerk", "x", REDIS_URL=""), "REDIS_URL: not set", "runwright up")
    refused(inside("tools", "list", RUNWRIGHT_TOOL_MODULES="no.such"), "there is no tool module 'no.such'")


def test_a_lost_redis_does_not_lose_a_run(cli: Run) -> None:
    """The row is committed, the failed ring is a note; stdout stays one document."""
    ended = cli("submit", "--assistant", "clerk", "x", "--json", REDIS_URL="redis://127.0.0.1:1/0")
    assert (ended.code, ended.json()["status"]) == (0, "queued")
    assert "ring_failed" in ended.err


def test_waiting_without_a_worker(cli: Run) -> None:
    """It says that nobody is there, and after the timeout that the run goes on; the exit code is 1."""
    ended = cli("submit", "--assistant", "clerk", "x", "--wait", "--timeout", "0.2", "--json")
    assert (ended.code, ended.json()["status"]) == (1, "queued")
    assert "no worker is running; start one with" in ended.err
    assert "it goes on: `runwright show" in ended.err


def test_tools_without_a_model(inside: Run) -> None:
    """The output is printed as the model would read it; a failure is exit code 1."""
    assert {one["name"] for one in inside("tools", "list", "--json").json()} >= {"calculate", "lookup_table"}
    assert inside("tools", "call", "calculate", '{"expression": "2 + 3 * 4"}').out == "14\n"
    ended = inside("tools", "call", "calculate", '{"expression": "1 / 0"}', "--json")
    assert (ended.code, ended.json()["status"], ended.json()["error"]) == (1, "failed", "exception")
    assert inside("tools", "call", "calculate", '{"wrong": 1}').code == 1


def test_a_batch_from_dry_run_to_export(cli: Run, tmp_path: Path) -> None:
    """A dry run writes nothing; the unreadable document fails alone; what ended is exported."""
    documents = tmp_path / "documents"
    documents.mkdir()
    for name, data in (("a.txt", b"alpha"), ("b.md", b"# beta"), ("c.pdf", b"%PDF-nothing")):
        (documents / name).write_bytes(data)
    ask = ("batch", "submit", "--assistant", "clerk", "--prompt", "Sum up.", "--json")
    dry = cli(*ask, "documents", "--dry-run").json()
    assert (dry["documents"], len(dry["unreadable"])) == (2, 1)
    assert dry["cost_usd"] > 0
    assert "estimated" in dry["assumption"]
    assert cli("batch", "list", "--json").json() == []
    batch = cli(*ask, "documents/*.txt", "documents").json()
    assert (batch["documents"], batch["unreadable"], batch["statuses"]) == (3, 1, {"queued": 2})
    assert cli("batch", "cancel", batch["id"], "--json").json()["changed"] == 2
    watched = cli("batch", "watch", batch["id"], "--json")
    assert (watched.code, watched.json()["ended"]) == (1, 3)
    assert "3 of 3 documents ended: 2 cancelled, 1 unreadable" in watched.err
    assert cli("batch", "retry", batch["id"], "--failed", "--json").json()["changed"] == 0
    assert [one["status"] for one in cli("batch", "show", batch["id"], "--json").json()["results"]] == [
        "cancelled",
        "cancelled",
        "unreadable",
    ]
    assert "the PDF" in cli("batch", "show", batch["id"]).out
    files = cli("batch", "export", batch["id"], "--to", "out", "--json").json()
    assert len((tmp_path / files["jsonl"]).read_text().splitlines()) == 3


def test_an_unknown_price_is_null(inside: Run, tmp_path: Path) -> None:
    """Never 0; people read that it is unknown."""
    (tmp_path / "a.txt").write_text("alpha")
    ask = ("batch", "submit", "--assistant", "reader", "--prompt", "p", "a.txt", "--dry-run")
    assert inside(*ask, "--json").json()["cost_usd"] is None
    assert "expected cost: unknown" in inside(*ask).out


def test_a_closed_pipe_and_ctrl_c_are_quiet(cli: Run, env: dict[str, str], tmp_path: Path) -> None:
    """Neither ends in a traceback."""
    cli("submit", "--assistant", "clerk", "x")
    command = [sys.executable, "-m", "tasks.cli.main"]
    reader, writer = os.pipe()
    os.close(reader)
    closed = subprocess.run(
        [*command, "list", "--json"], stdout=writer, stderr=subprocess.PIPE, env=env, cwd=tmp_path, check=False
    )
    os.close(writer)
    assert closed.stderr == b""
    with subprocess.Popen(
        [*command, "submit", "--assistant", "clerk", "x", "--wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        cwd=tmp_path,
        # A shell that started us in the background has SIGINT ignored, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no thread of ours runs here
    ) as waiting:
        try:
            assert waiting.stderr is not None
            assert b"no worker is running" in waiting.stderr.readline()
            waiting.send_signal(signal.SIGINT)
            out, err = waiting.communicate(timeout=30)
        finally:
            waiting.kill()
    assert (waiting.returncode, out) == (130, b"")
    assert b"Traceback" not in err
