"""The file of assistants as YAML, with the line of each of its parts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from worker.errors import UsageError

Loc = tuple[int | str, ...]
"""The way to a part of the file: keys and places in lists."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and in which line."""

    line: int
    text: str

    @classmethod
    def at(cls, root: yaml.Node, loc: Loc, text: str) -> Self:
        """Return what is wrong with a part of an assistant."""
        return cls(line(root, loc), f"{_whose(loc)}{text}")


def read(path: Path) -> tuple[yaml.Node, Any, list[Problem]]:
    """Return the nodes of a file, what it holds, and the keys that stand twice; UsageError where it is not YAML."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        if root is None:
            raise UsageError(f"{path}: the file is empty; it begins with `assistants:`")
        _refuse_loops(path, root, (), set())
        twice = list(_duplicates(root, (), set()))
        # This folds merge keys (<<) into the nodes: what they bring has a line then, but looks as if it stood twice.
        return root, loader.construct_document(root), twice
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or 'cannot be read'}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: this is not a text file in UTF-8") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UsageError(f"{path}{where}: this is not YAML: {reason}") from None


def entries(path: Path, data: Any) -> Mapping[Any, Any]:
    """Return what stands below `assistants`, by name; UsageError where the file holds anything else."""
    found = data.get("assistants") if isinstance(data, dict) else None
    if not isinstance(found, dict) or not found:
        raise UsageError(f"{path}:1: the file must hold `assistants:` and below it each assistant by its name")
    if others := [key for key in data if key != "assistants"]:
        raise UsageError(f"{path}:1: unknown key {others[0]!r} beside `assistants`")
    return found


def line(root: yaml.Node, loc: Loc) -> int:
    """Return the line of the deepest part of `loc` that is in the file."""
    node, at = root, root.start_mark.line
    for part in loc:
        step = _step(node, part)
        if step is None:
            break
        at, node = step
    return at + 1


def _step(node: yaml.Node, part: int | str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):  # a key that a merge brought stands before the own one
            if str(key.value) == str(part):
                return key.start_mark.line, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        child = node.value[part]
        return child.start_mark.line, child
    return None


def _whose(loc: Loc) -> str:
    """Say whose part a place is: locations begin with `assistants` and the name."""
    return f"assistant {loc[1]!r}: " if len(loc) > 1 else ""


def _refuse_loops(path: Path, node: yaml.Node, above: tuple[yaml.Node, ...], whole: set[yaml.Node]) -> None:
    if node in above:
        raise UsageError(f"{path}:{node.start_mark.line + 1}: this part of the file refers to itself")
    if node not in whole:
        for child in _children(node):
            _refuse_loops(path, child, (*above, node), whole)
        whole.add(node)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [value for _, value in node.value]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _duplicates(node: yaml.Node, loc: Loc, visited: set[yaml.Node]) -> Iterator[Problem]:
    """Find keys written twice: YAML would silently keep the last one."""
    if not isinstance(node, yaml.MappingNode) or node in visited:
        return
    visited.add(node)
    first: dict[str, int] = {}
    for key, value in node.value:
        name, at = str(key.value), key.start_mark.line + 1
        if name in first:
            yield Problem(at, f"{_whose(loc)}{name!r} stands twice; first in line {first[name]}")
        first.setdefault(name, at)
        yield from _duplicates(value, (*loc, name), visited)
