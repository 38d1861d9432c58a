"""What may be given as on_end, and the words in which anything else is refused."""

from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, group
from sqlalchemy import select
from typer.testing import CliRunner

from tasks.cli.main import app
from tasks.hooks import hook
from worker.errors import ThreadBusy, UsageError
from worker.models import Batch, Run
from worker.producer import producer
from worker.store import assistants

PLAIN: dict[str, Any] = {"task": "shop.done", "args": [], "kwargs": {}, "queue": None, "immutable": False}


@pytest.fixture
def shop() -> Any:
    """Return a task of another code base."""
    celery = Celery("shop", set_as_current=False)

    @celery.task(name="shop.done", shared=False)  # type: ignore[untyped-decorator]
    def done(*_args: Any, **_kwargs: Any) -> None:
        """Do nothing."""

    return done


def test_a_signature_is_kept_as_a_plain_dict(shop: Any) -> None:
    """Name, arguments, queue and whether it is immutable; the same from its dict, and from JSON of it."""
    kept = {**PLAIN, "args": [1, [2]], "kwargs": {"a": None}, "queue": "mail"}
    signature = shop.s(1, (2,), a=None).set(queue="mail")
    assert hook(signature) == hook(dict(signature)) == kept
    assert type(hook(signature)) is dict
    assert hook(shop.si(1)) == {**PLAIN, "args": [1], "immutable": True}
    assert hook(None) is None


@pytest.mark.parametrize(("text", "queue"), [("shop.done", None), ("shop.done@mail", "mail")])
def test_a_name_is_enough(text: str, queue: str | None) -> None:
    """TASK, or TASK@QUEUE."""
    assert hook(text) == {**PLAIN, "queue": queue}
    assert hook({"task": "shop.done", "options": {"queue": queue}}) == {**PLAIN, "queue": queue}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", "the task's name is a text of 1 to 200 characters, not ''"),
        ("shop.done@", "the queue is a text"),
        ({}, "the task's name is a text of 1 to 200 characters, not None"),
        ({"task": 7}, "not 7"),
        ({"task": "t", "options": {"countdown": 3}}, "the option 'countdown' cannot be kept; only queue"),
        ({"task": "t", "colour": "red"}, "the part 'colour' cannot be kept"),
        ({"task": "t", "args": "abc"}, "args is a list"),
        ({"task": "t", "kwargs": {1: 2}}, "kwargs is a dict with names as keys"),
        ({"task": "t", "args": [object()]}, "on_end must be JSON"),
        ({"task": "t", "args": [float("nan")]}, "on_end must be JSON"),
        ({"task": "t", "args": ["a\x00b"]}, "NUL character"),
    ],
)
def test_anything_else_is_refused_in_one_line(given: Any, told: str) -> None:
    """UsageError that begins with on_end and names what is wrong."""
    with pytest.raises(UsageError) as raised:
        hook(given)
    assert str(raised.value).startswith("on_end")
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_canvas_is_refused_by_its_name(shop: Any) -> None:
    """One task can be sent; a chain, a group or a chord of several cannot."""
    for canvas, name in ((chain(shop.s(), shop.s()), "chain"), (group(shop.s(), shop.s()), "group")):
        with pytest.raises(UsageError, match=f"one task, not a {name}"):
            hook(canvas)


def test_the_command_line_takes_both_options(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--on-end of a run and of a batch is kept; --on-busy reject is refused on a busy thread."""
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    producer.cache_clear()
    door = producer()
    with door.database.write() as connection:
        assistants.apply(connection, "clerk", {"model": "m"})
    document = tmp_path / "a.txt"
    document.write_text("hello")

    def run(*arguments: str) -> None:
        CliRunner().invoke(app, [*arguments, "--assistant", "clerk"], catch_exceptions=False)

    run("submit", "hello", "--thread", "t", "--on-end", "shop.done@shop")
    run("batch", "submit", str(document), "--prompt", "p", "--on-end", "shop.done")
    with door.database.read() as connection:
        kept = connection.execute(select(Run.on_end).where(Run.thread_id == "t")).scalar_one()
        batch = connection.execute(select(Batch.on_end, Batch.sealed_at)).one()
    assert (kept, batch.on_end, batch.sealed_at is not None) == ({**PLAIN, "queue": "shop"}, PLAIN, True)
    with pytest.raises(ThreadBusy, match="thread 't' is busy: run "):
        run("submit", "hello", "--thread", "t", "--on-busy", "reject")
    door.database.close()
    producer.cache_clear()
