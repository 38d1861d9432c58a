"""Migrating a database that is in use: two at once, and an older one with real rows in it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import column as named
from sqlalchemy import insert, select, table, text

from tests.conftest import _postgres_database
from worker.dbtime import from_now
from worker.errors import SchemaError
from worker.models import Assistant, Base, Batch, Conversation, Outgoing, Run, Thread
from worker.store import migrating, schema
from worker.store.database import Database


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Return a database without any table."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'empty.db'}")
        yield database
        database.close()
        return
    with _postgres_database(request.getfixturevalue("postgres_server"), "template0") as url:
        database = Database(url)
        yield database
        database.close()


def at_once(count: int, act: Callable[[], Any]) -> list[Any]:
    """Do the same several times, begun together."""
    begin = Barrier(count)

    def one(_number: int) -> Any:
        begin.wait()
        return act()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def migrate_apart(url: str) -> tuple[str | None, str]:
    """Migrate as a process of its own would: with its own connections."""
    database = Database(url)
    try:
        return migrating.migrate(database)
    finally:
        database.close()


def test_several_migrate_at_once(empty: Database) -> None:
    """Expected: all succeed; one of them does the work, the others find nothing to do."""
    found = at_once(4, lambda: migrate_apart(empty.url))
    assert sorted(before or "" for before, _ in found) == ["", *[schema.head()] * 3]
    assert {after for _, after in found} == {schema.head()}
    schema.check(empty)


def fill(database: Database) -> None:
    """Enter what a user of revision 0001 has: a batch, a thread with a conversation, and a run that has ended."""
    rows: dict[type[Base], dict[str, Any]] = {
        Assistant: {"id": "asst_1", "name": "helper", "version": 1, "config": {"model": "m"}},
        Batch: {"id": "batch_1", "assistant": "helper", "prompt": "Sum up."},
        Thread: {"id": "t", "next_seq": 1, "provider_id": "conv_1", "last_item": "msg_1"},
        Run: {
            "id": "r",
            "thread_id": "t",
            "seq": 1,
            "assistant_id": "asst_1",
            "batch_id": "batch_1",
            "queue": "default",
            "priority": 5,
            "status": "completed",
            "input": [{"type": "text", "text": "hi"}],
            "input_hash": "h",
            "metadata": {},
            "store_result": True,
            "turn": False,
            "fence": 1,
            "attempt": 1,
            "max_attempts": 3,
            "step": 1,
            "timeout": 60.0,
            "output_text": "hello",
        },
    }
    times: dict[type[Base], tuple[str, ...]] = {Run: ("created_at", "available_at", "started_at", "finished_at")}
    with database.write() as connection:
        for model, row in rows.items():
            # By the columns of that time: the models know those of today.
            known = {one.name: named(one.name, one.type) for one in model.__table__.columns}
            when = times.get(model, ("created_at",))
            old = table(model.__tablename__, *(known[name] for name in [*row, *when]))
            connection.execute(insert(old).values(**row, **dict.fromkeys(when, from_now())))


def test_rows_of_the_first_revision_are_kept(empty: Database) -> None:
    """Expected: refused with the way out; once migrated, every row is there and what the new tables need is made."""
    migrating.migrate(empty, "0001")
    fill(empty)
    with pytest.raises(SchemaError, match=r"the schema is 0001, .*; run `runwright migrate`$"):
        schema.check(empty)
    assert migrating.migrate(empty) == ("0001", schema.head())
    schema.check(empty)
    with empty.read() as connection:
        run = connection.execute(select(Run)).one()
        thread = connection.execute(select(Thread)).one()
        conversation = connection.execute(select(Conversation)).one()
        told = connection.execute(select(Outgoing)).one()
        batch = connection.execute(select(Batch)).one()
        counts = connection.execute(text("SELECT count(*) FROM runwright_assistants")).scalar_one()
    assert (run.id, run.output_text, run.input, run.on_end) == ("r", "hello", [{"type": "text", "text": "hi"}], None)
    assert (thread.provider_id, thread.last_item) == ("conv_1", "msg_1")
    assert (conversation.id, conversation.thread_id, conversation.left_at, conversation.deleted_at) == (
        *("conv_1", "t"),
        *(None, None),
    )
    assert (told.kind, told.subject, told.payload, told.created_at) == ("result", "r", {}, run.finished_at)
    assert (batch.prompt, batch.ended_at, counts) == ("Sum up.", None, 1)
