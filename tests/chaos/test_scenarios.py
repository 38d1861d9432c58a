"""The list of crash points is the product's own: a new one without a scenario fails here."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.scenarios import PLACES
from worker import store

ROOT = Path(__file__).parents[2]
UNITS = {file.stem for folder in store.__path__ for file in Path(folder).glob("*.py")}


def named_points(tree: ast.AST) -> Iterator[str]:
    """Yield the texts that reach() is given, and a point for each unit of the store that is given to a write."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        match node.func, node.args[0]:
            case ast.Name("reach"), ast.Constant(str(point)):
                yield point.rpartition(".")[0]
            case ast.Attribute(attr="write" | "_write"), ast.Attribute(ast.Name(module), unit) if module in UNITS:
                yield f"commit.{unit}"


def test_each_crash_point_of_the_product_has_a_scenario() -> None:
    """Both ways: no point without one, and no scenario for a point that is gone."""
    sources = [file for folder in ("worker", "tasks", "tools") for file in (ROOT / folder).rglob("*.py")]
    found = {point for file in sources for point in named_points(ast.parse(file.read_text()))}
    assert found == set(PLACES)


def test_points_are_found() -> None:
    """The search sees what it is there for, and a file's or a pipe's write is none of it."""
    text = (
        "reach('outside.x.before')\nself._pace.write(ledger.start, 1)\npool.write(leases.reap)\nfile.write(body.text)"
    )
    assert set(named_points(ast.parse(text))) == {"outside.x", "commit.start", "commit.reap"}
