"""The documents against the code: what they list is what there is, and what they show can be typed.

`.venv/bin/python -m tests.unit.test_docs` writes the generated blocks of docs/reference.md anew.
"""

import ast
import dataclasses
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks import approvals, runs
from tasks.cli import running
from tasks.cli.main import COMMANDS
from tools.context import ToolContext
from tools.registry import Registry, tool, tool_of
from worker.assistants import configuration as assistants
from worker.broker import wire
from worker.care import doctor
from worker.lifecycle import MOVES, TERMINAL, Status
from worker.models import Base
from worker.settings import Settings
from worker.store.reading import RunView

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference.md"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TUTORIALS = [ROOT / "README.md", *(ROOT / "docs" / name for name in ("tutorial.md", "for-celery-users.md"))]
PLACE = r"(?<![\w.~-])/(?:work|tmp|home|root|Users)/"


# ── what the code says ────────────────────────────────────────────────────────────────────────────────────────────


def settings_table() -> str:
    """Return every setting as a row of a table."""
    rows = ["| variable | default | |", "|---|---|---|"]
    for one in Settings.described():
        default = one.default if one.default == "not set" else f"`{one.default}`"
        rows.append(f"| `{one.variable}` | {default} | {one.description} |")
    return "\n".join(rows)


def moves_diagram() -> str:
    """Return the moves between two different statuses as a Mermaid diagram."""
    events: dict[tuple[Status, Status], list[str]] = {}
    place = list(Status).index  # sets are among what the moves are made of: their order is not the same every time
    for (before, event), after in sorted(MOVES.items(), key=lambda move: (place(move[0][0]), place(move[1]))):
        if before is not after:
            events.setdefault((before, after), []).append(event.replace("_", " "))
    arrows = [f"    {before} --> {after}: {', '.join(names)}" for (before, after), names in events.items()]
    ends = [f"    {status} --> [*]" for status in Status if status in TERMINAL]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> queued: submit", *arrows, *ends, "```"])


def commands() -> dict[str, Any]:
    """Return every command that does something, by its whole name."""

    def below(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
        for part, one in (inner or {}).items():
            yield from below(one, f"{name} {part}")

    return {name: found for part, one in tree().items() for name, found in below(one, f"runwright {part}")}


def tree() -> dict[str, Any]:
    """Return every command and group of commands as it is when it is run."""
    return {name: running.command(name, listed.module) for name, listed in COMMANDS.items()}


def commands_list() -> str:
    """Return every command with its arguments and options."""
    parts = []
    for name, command in commands().items():
        arguments = [one.metavar or one.name for one in command.params if one.param_type_name == "argument"]
        first = command.help.split("\n\n")[0].replace("\n", " ")
        options = [_option(one) for one in command.params if one.param_type_name == "option"]
        parts.append("\n".join([f"**`{' '.join([name, *arguments])}`** {first}", "", *options]).rstrip())
    return "\n\n".join(parts)


def _option(option: Any) -> str:
    name = option.opts[0]
    if name == "--json":
        return "- `--json`"
    if option.secondary_opts:  # a pair such as --this/--no-this: what it is by default is the name of one of them
        default = name if option.default else option.secondary_opts[0]
        return f"- `{name}/{option.secondary_opts[0]}` {option.help} Default: {default}."
    value = "" if option.is_flag else f" {option.metavar or name.strip('-').upper()}"
    default = "" if option.default in (None, False) else f" Default: {option.default}."
    return f"- `{name}{value}` {option.help}{' Required.' if option.required else default}"


BLOCKS = {"settings": settings_table, "moves": moves_diagram, "commands": commands_list}


def block(name: str) -> re.Pattern[str]:
    """Return what finds a generated block; its text is the group."""
    return re.compile(f"<!-- from the code: {name} -->\n(.*?)\n<!-- end -->", re.DOTALL)


def main() -> None:
    """Write the generated blocks anew."""
    text = REFERENCE.read_text()
    for name, make in BLOCKS.items():
        filled = f"<!-- from the code: {name} -->\n\n{make()}\n\n<!-- end -->"
        text = block(name).sub(lambda _match, filled=filled: filled, text)  # type: ignore[misc]
    REFERENCE.write_text(text)


def codes() -> set[str]:
    """Return the codes of errors that are written out where they are raised or told, the provider's own left out."""
    found = set()
    for file in (ROOT / "worker").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name(id="ProviderError" | "Failed") | ast.Attribute(attr="cut" | "_failed"),
                    args=[ast.Constant(value=str(code)), *_],
                ):
                    found.add(code)
    return found - {"conversation_locked", "server_error"}


# ── what the documents say ────────────────────────────────────────────────────────────────────────────────────────


def listed(heading: str) -> set[str]:
    """Return the names in the first column of the table below a heading of the reference."""
    section = re.split(rf"^#+ {re.escape(heading)}$", REFERENCE.read_text(), maxsplit=1, flags=re.MULTILINE)[1]
    section = re.split(r"^#", section, maxsplit=1, flags=re.MULTILINE)[0]
    return {
        name for row in re.findall(r"^\| (`[^|]*`) \|", section, re.MULTILINE) for name in row.strip("`").split("`, `")
    }


def fenced(page: Path, language: str) -> list[str]:
    """Return the blocks of code of a page that are in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def typed(page: Path) -> list[list[str]]:
    """Return the `runwright` commands of a page as a shell would split them, without what comes after a pipe."""
    found = []
    for text in [line for shell in fenced(page, "(?:sh|console)") for line in shell.splitlines()]:
        lexer = shlex.shlex(text.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        if "runwright" not in text.split("#")[0]:
            continue
        words = ["runwright" if word == ".venv/bin/runwright" else word for word in lexer]
        if "runwright" in words[:4]:
            words = words[words.index("runwright") + 1 :]
            end = next((at for at, word in enumerate(words) if set(word) <= set("|>&;")), len(words))
            found.append(words[:end])
    return found


def parse(words: list[str]) -> None:
    """Parse a command line as `runwright` does; raises what it would complain about."""
    rest = list(words)
    found: Any = tree()[rest.pop(0)]
    while inner := getattr(found, "commands", None):
        found = inner[rest.pop(0)]
    found.make_context("runwright", rest)


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-")


# ── tests ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", BLOCKS)
def test_the_reference_lists_what_the_code_has(name: str) -> None:
    """Settings, moves and commands are listed as they are: nothing is missing and nothing is made up."""
    found = block(name).search(REFERENCE.read_text())
    expected = BLOCKS[name]()
    assert found is not None, f"docs/reference.md has no block {name!r}"
    assert found[1].strip() == expected, f"run `.venv/bin/python -m tests.unit.test_docs`; expected:\n{expected}"


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("Statuses", {status.value for status in Status}),
        ("Assistants", set(assistants.AssistantConfig.model_fields)),
        ("Asking for a run", set(inspect.signature(runs.submit).parameters)),
        ("What a run shows", {field.name for field in dataclasses.fields(RunView)}),
        (
            "Asking people",
            {name for name, one in vars(approvals).items() if inspect.isfunction(one) and name[0] != "_"},
        ),
        ("The decorator", set(inspect.signature(tool).parameters) - {"function"}),
        ("What a call knows", {field.name for field in dataclasses.fields(ToolContext)}),
        ("Shipped tools", set(Registry.load().names())),
        ("Celery tasks", {wire.RUN, wire.SUBMIT, wire.DISPATCH, wire.RING_DUE, wire.CLEAN}),
        ("Tables", set(Base.metadata.tables)),
    ],
)
def test_the_tables_of_the_reference_are_whole(heading: str, names: set[str]) -> None:
    """The first column of each table holds exactly the names that the code has."""
    assert listed(heading) == names


def test_the_reference_lists_the_codes_of_errors() -> None:
    """Every code of our own has its row, or is among those that end no attempt."""
    found = codes()
    assert found >= {"max_steps", "missing_key", "too_long"}
    section = REFERENCE.read_text().split("### Error codes of our own\n")[1].split("\n## ")[0]
    assert found - set(re.findall(r"`(\w+)`", section)) == set()


def test_the_reference_says_of_each_command_what_json_prints() -> None:
    """Every command that takes --json is in the table, and no other."""
    takes = {name for name, command in commands().items() if any("--json" in one.opts for one in command.params)}
    assert {f"runwright {name.split(' --')[0]}" for name in listed("What `--json` prints")} == takes


def test_the_runbook_says_what_to_do_where_doctor_cannot_mend() -> None:
    """Each check without a cure has an entry in the section of `runwright doctor`."""
    section = re.split(r"^## ", (ROOT / "docs" / "runbook.md").read_text(), flags=re.MULTILINE)[-1]
    incurable = {one.name for one in doctor.checks(Settings.from_env({})) if one.mend is None}
    assert set(re.findall(r"^### (.+)$", section, re.MULTILINE)) == {"schema", *incurable}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link is a file of the repository; its anchor is a heading there."""
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text()):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.name)
def test_commands_can_be_typed(page: Path) -> None:
    """Every `runwright …` of a shell block is accepted by the command line, options and all."""
    for words in typed(page):
        try:
            parse(words)
        except Exception as error:
            raise AssertionError(f"{page.name}: runwright {shlex.join(words)}: {error!r}") from error


def test_the_tutorial_has_commands_to_type() -> None:
    """The search for commands finds them: submit, batch and tools are among those of the tutorial."""
    assert {"submit", "batch", "tools", "assistants", "show"} <= {words[0] for words in typed(TUTORIALS[1])}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_exist(page: Path) -> None:
    """A `runwright …` inside a sentence names a command, and options that this command has."""
    known = commands()
    for words in map(str.split, re.findall(r"`(?:\w+=\S+ )*runwright ([^`]+)`", page.read_text())):
        name = next((n for size in (2, 1) if (n := " ".join(["runwright", *words[:size]])) in known), None)
        group = any(full.startswith(f"runwright {words[0]} ") for full in known)
        assert name or (group and len(words) == 1), f"{page.name}: runwright {' '.join(words)}"
        options = (
            {option for one in known[name].params for option in (*one.opts, *one.secondary_opts)} if name else set()
        )
        assert {word for word in words if word.startswith("--")} <= options | {"--help"}, f"{page.name}: {words}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_path_of_a_machine(page: Path) -> None:
    """A path of whoever wrote the page helps nobody."""
    assert not re.findall(PLACE + r"\S*", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_of_the_pages_imports_what_exists(page: Path) -> None:
    """Every block of Python is Python, and what it imports from us is there."""
    for code in fenced(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"tasks", "tools", "worker"}:
                for alias in node.names:  # as the statement does it: a module of a package counts, loaded or not
                    exec(f"from {node.module} import {alias.name}", {})


def test_the_tools_of_the_tutorial_work() -> None:
    """The tool that a newcomer writes down gives what the tutorial shows."""
    space: dict[str, Any] = {"__name__": "tutorial"}
    for code in fenced(ROOT / "docs" / "tutorial.md", "python"):
        if "@tool" in code:
            exec(compile(code, "tutorial.md", "exec"), space)
    made = [found for value in space.values() if (found := tool_of(value))]
    assert [one.name for one in made] == ["delivery_date"]
    context: Any = None  # the tool asks for none
    assert made[0].function(**made[0].values('{"ordered": "2026-03-13"}', context)) == "Wednesday, 18 March 2026"


@pytest.mark.parametrize("page", [*TUTORIALS, REFERENCE], ids=lambda page: page.name)
def test_assistants_of_the_pages_can_be_applied(page: Path, tmp_path: Path) -> None:
    """Every block of YAML with assistants is a valid file."""
    for text in fenced(page, "yaml"):
        if text.startswith("assistants:"):
            file = tmp_path / "assistants.yaml"
            file.write_text(text)
            assert assistants.load(file, [*Registry.load().names(), "delivery_date", "order_state"], "responses")


if __name__ == "__main__":
    main()
