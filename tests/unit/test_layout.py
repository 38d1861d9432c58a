"""The layout of the house: which way imports run, and how long things may be."""

import ast
import graphlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "tools": set(),
    "simulator": set(),
    "worker": {"tools"},
    "tasks": {"worker", "tools"},
    "benchmarks": {"tests", "tasks", "worker", "tools", "simulator"},  # its servers are started as the tests' are
    "tests": {"benchmarks", "tasks", "worker", "tools", "simulator"},
}
READS_ENVIRONMENT = {"worker/settings.py", "simulator/__main__.py"}
MAY_IMPORT_BY_NAME = ("tools/", "tasks/cli/main.py", "tasks/cli/running.py", "worker/truncation.py")
VAGUE = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc"}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)

Check = Callable[[str, str], Iterator[str]]


def sources() -> dict[str, str]:
    """Return our Python files: their text by their path from the root."""
    files = [file for folder in MAY_IMPORT for file in sorted((ROOT / folder).rglob("*.py"))]
    return {file.relative_to(ROOT).as_posix(): file.read_text() for file in files}


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the dotted name of everything that is imported, names of `from` imports included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module or ''}.{alias.name}") for alias in node.names)


def one_way(name: str, text: str) -> Iterator[str]:
    folder = name.split("/", maxsplit=1)[0]
    for line, target in imported(ast.parse(text)):
        other = target.split(".")[0]
        if other in MAY_IMPORT and other != folder and other not in MAY_IMPORT[folder]:
            yield f"{name}:{line}: {folder} imports {target}"
        if name == "worker/lifecycle.py" and other in MAY_IMPORT:
            yield f"{name}:{line}: the lifecycle imports nothing of ours, not {target}"


def no_hidden_imports(name: str, text: str) -> Iterator[str]:
    tree = ast.parse(text)
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"{name}:{node.lineno}: relative import"
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in top:
            yield f"{name}:{node.lineno}: import that is not at the top level"
        if isinstance(node, ast.Name | ast.Attribute | ast.alias) and "TYPE_CHECKING" in ast.dump(node):
            yield f"{name}: TYPE_CHECKING"
        if isinstance(node, ast.Attribute) and node.attr == "import_module" and not name.startswith(MAY_IMPORT_BY_NAME):
            yield f"{name}:{node.lineno}: only what is asked for is imported by name, such as tools and commands"


def init_is_a_docstring(name: str, text: str) -> Iterator[str]:
    if name.endswith("__init__.py"):
        tree = ast.parse(text)
        if len(tree.body) != 1 or not ast.get_docstring(tree):
            yield f"{name}: holds something else than a docstring that maps its folder"


def short(name: str, text: str) -> Iterator[str]:
    if name.startswith(("tests/", "worker/migrations/versions/")):
        return
    if (lines := text.count("\n")) > 350:
        yield f"{name}: {lines} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, FUNCTION) and (lines := (node.end_lineno or 0) - node.lineno + 1) > 50:
            yield f"{name}:{node.lineno}: {node.name} has {lines} lines"


def named_for_what_it_is(name: str, _text: str) -> Iterator[str]:
    for part in Path(name).with_suffix("").parts:
        if part in VAGUE:
            yield f"{name}: {part} says nothing"


def one_reader_of_the_environment(name: str, text: str) -> Iterator[str]:
    if name in READS_ENVIRONMENT or name.startswith(("tests/", "benchmarks/")):
        return
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.environb", "os.getenv"}:
            yield f"{name}:{node.lineno}: {ast.unparse(node)}"
    for line, target in imported(tree):
        if target in {"os.environ", "os.getenv"}:
            yield f"{name}:{line}: {target}"


CHECKS: list[Check] = [
    one_way,
    no_hidden_imports,
    init_is_a_docstring,
    short,
    named_for_what_it_is,
    one_reader_of_the_environment,
]


@pytest.mark.parametrize("check", CHECKS)
def test_every_file_keeps_the_rule(check: Check) -> None:
    """The offenders are listed with file and line."""
    offenders = [offender for name, text in sources().items() for offender in check(name, text)]
    assert not offenders, "\n".join(["", *offenders])


@pytest.mark.parametrize(
    ("check", "name", "text"),
    [
        (one_way, "tools/a.py", "import worker.settings\n"),
        (one_way, "worker/a.py", "from tasks import runs\n"),
        (one_way, "worker/lifecycle.py", "from worker.errors import LostClaim\n"),
        (one_way, "simulator/a.py", "from tools.text import tokens\n"),
        (no_hidden_imports, "worker/a.py", "from . import errors\n"),
        (no_hidden_imports, "worker/a.py", "def f():\n    import json\n"),
        (no_hidden_imports, "worker/a.py", "from typing import TYPE_CHECKING\n"),
        (no_hidden_imports, "worker/a.py", "import typing\nprint(typing.TYPE_CHECKING)\n"),
        (no_hidden_imports, "worker/a.py", "import importlib\nimportlib.import_module('json')\n"),
        (init_is_a_docstring, "worker/__init__.py", ""),
        (init_is_a_docstring, "worker/__init__.py", '"""A map."""\nimport json\n'),
        (short, "worker/a.py", "x = 1\n" * 351),
        (short, "worker/a.py", "def f():\n" + "    x = 1\n" * 50),
        (named_for_what_it_is, "worker/utils.py", ""),
        (named_for_what_it_is, "worker/common/a.py", ""),
        (one_reader_of_the_environment, "worker/a.py", "import os\nprint(os.environ['X'])\n"),
        (one_reader_of_the_environment, "tasks/a.py", "from os import getenv\n"),
    ],
)
def test_a_broken_rule_is_found(check: Check, name: str, text: str) -> None:
    """The checks above see what they are there for."""
    assert list(check(name, text))


def test_imports_have_no_cycle() -> None:
    """Each module can be understood after those that it imports."""
    modules = {Path(name).with_suffix("").as_posix().replace("/", "."): text for name, text in sources().items()}
    graph = {}
    for module, text in modules.items():
        targets = {target for _, target in imported(ast.parse(text))}
        # `from worker import urls` names a module, `from worker.urls import x` something in one.
        found = {target if target in modules else target.rpartition(".")[0] for target in targets}
        graph[module] = found & set(modules)
    assert any(graph.values())
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_no_module_has_the_name_of_something_imported() -> None:
    """`celery.py`, `redis.py` or `types.py` would be read by people, and by some tools, as the other."""
    everything = {target.split(".")[0] for text in sources().values() for _, target in imported(ast.parse(text))}
    clashes = [name for name in sources() if Path(name).stem in everything - set(MAY_IMPORT)]
    assert "ast" in everything
    assert not clashes


@pytest.mark.parametrize(
    "init", [name for name in sources() if name.endswith("/__init__.py") and not name.startswith("tests/")]
)
def test_each_folder_is_mapped_by_its_docstring(init: str) -> None:
    """A reader finds every module of a folder in its map, by its name."""
    folder = Path(init).parent
    here = {Path(name).stem for name in sources() if Path(name).parent == folder and name != init}
    missing = {name for name in here if not re.search(rf"\b{name}\b", sources()[init])}
    assert not missing, f"{init} does not name {', '.join(sorted(missing))}"
