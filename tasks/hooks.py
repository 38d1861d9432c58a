"""Completion hooks: what a producer gives as `on_end`, checked, in the form in which it is kept."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from tasks.checks import check_json
from worker.errors import UsageError

_PARTS = ("task", "args", "kwargs", "options", "immutable", "subtask_type")


def hook(on_end: Mapping[str, Any] | str | None) -> dict[str, Any] | None:
    """Return a hook as it is kept: task, args, kwargs, queue and immutable; raises UsageError in clear words.

    It is a Celery signature, the dict of one, or TASK or TASK@QUEUE. The task is called by its name, so what its own
    code base says of its routing is not known here: without a queue it goes to Celery's default queue, `celery`, and
    not to a queue of runs. Nothing of its options but the queue can be kept.
    """
    if on_end is None:
        return None
    given = _named(on_end) if isinstance(on_end, str) else {name: on_end[name] for name in on_end}
    _know(given, _PARTS, "part")
    if given.get("subtask_type"):
        raise UsageError(f"on_end: one task, not a {given['subtask_type']}; the task may start it")
    options = _mapping(given, "options")
    _know(options, ("queue",), "option")
    found = {
        "task": _name(given.get("task"), "the task's name"),
        "args": _list(given.get("args")),
        "kwargs": _mapping(given, "kwargs"),
        "queue": None if options.get("queue") is None else _name(options["queue"], "the queue"),
        "immutable": bool(given.get("immutable")),
    }
    check_json(found, "on_end")
    return dict(json.loads(json.dumps(found)))


def _named(text: str) -> dict[str, Any]:
    task, at, queue = text.partition("@")
    return {"task": task, "options": {"queue": queue}} if at else {"task": task}


def _know(given: Mapping[Any, Any], known: Collection[str], what: str) -> None:
    unknown = [name for name, value in given.items() if name not in known and value is not None]
    if unknown:
        raise UsageError(f"on_end: the {what} {unknown[0]!r} cannot be kept; only {', '.join(known)}")


def _name(value: Any, what: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise UsageError(f"on_end: {what} is a text of 1 to 200 characters, not {value!r}")
    return value


def _list(value: Any) -> list[Any]:
    if value is not None and not isinstance(value, list | tuple):
        raise UsageError(f"on_end: args is a list, not {value!r}")
    return list(value or ())


def _mapping(given: Mapping[str, Any], part: str) -> dict[str, Any]:
    value = given.get(part)
    if value is not None and not (isinstance(value, Mapping) and all(isinstance(name, str) for name in value)):
        raise UsageError(f"on_end: {part} is a dict with names as keys, not {value!r}")
    return dict(value or {})
