"""what the promises need: the outbox, questions to people, conversations to clean up, pauses."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from worker.dbtime import UtcDateTime

revision = "0002"
down_revision = "0001"

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_UNTOLD = sa.text("store_result AND finished_at IS NOT NULL")
_UNENDED = sa.text("batch_id IS NOT NULL AND finished_at IS NULL")
_UNDECIDED = sa.text("question IS NOT NULL AND decision IS NULL")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "runwright_outbox",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("payload", _JSON, nullable=False),
        sa.Column("taken_until", UtcDateTime(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runwright_outbox")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "runwright_pauses",
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", name=op.f("pk_runwright_pauses")),
    )
    op.create_table(
        "runwright_conversations",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("thread_id", sa.String(length=200), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("left_at", UtcDateTime(), nullable=True),
        sa.Column("deleted_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["thread_id"], ["runwright_threads.id"], name=op.f("fk_runwright_conversations_thread_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runwright_conversations")),
    )
    op.create_index("ix_runwright_conversations_thread_id", "runwright_conversations", ["thread_id"])
    op.execute(
        "INSERT INTO runwright_conversations (id, thread_id, created_at) "
        "SELECT provider_id, id, created_at FROM runwright_threads WHERE provider_id IS NOT NULL"
    )

    op.drop_index("ix_runwright_runs_untold", "runwright_runs", postgresql_where=_UNTOLD, sqlite_where=_UNTOLD)
    # An end that was not told yet: who waits for an AsyncResult is told by the outbox from now on.
    runs = sa.table("runwright_runs", sa.column("id"), sa.column("finished_at"))
    outbox = sa.table("runwright_outbox", *map(sa.column, ("kind", "subject", "payload", "created_at")))
    ends = sa.select(sa.literal("result"), runs.c.id, sa.literal({}, _JSON), runs.c.finished_at).where(_UNTOLD)
    op.execute(outbox.insert().from_select(["kind", "subject", "payload", "created_at"], ends))
    op.add_column("runwright_runs", sa.Column("on_end", _JSON, nullable=True))
    op.add_column("runwright_runs", sa.Column("seconds_left", sa.Double(), nullable=True))
    op.create_index(
        "ix_runwright_runs_unended",
        "runwright_runs",
        ["batch_id"],
        postgresql_where=_UNENDED,
        sqlite_where=_UNENDED,
    )
    op.add_column("runwright_batches", sa.Column("on_end", _JSON, nullable=True))
    op.add_column("runwright_batches", sa.Column("sealed_at", UtcDateTime(), nullable=True))
    op.add_column("runwright_batches", sa.Column("ended_at", UtcDateTime(), nullable=True))
    op.add_column("runwright_attempts", sa.Column("adopted", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("runwright_workers", sa.Column("http", sa.String(length=200), nullable=True))

    calls = "runwright_tool_calls"
    op.add_column(calls, sa.Column("effect", sa.String(length=20), nullable=False, server_default="once"))
    op.add_column(calls, sa.Column("question", sa.String(length=20), nullable=True))
    op.add_column(calls, sa.Column("decide_by", UtcDateTime(), nullable=True))
    op.add_column(calls, sa.Column("decision", sa.String(length=20), nullable=True))
    op.add_column(calls, sa.Column("decided_by", sa.String(length=200), nullable=True))
    op.add_column(calls, sa.Column("decided_at", UtcDateTime(), nullable=True))
    op.add_column(calls, sa.Column("reason", sa.Text(), nullable=True))
    op.create_index(
        "ix_runwright_tool_calls_undecided",
        calls,
        ["decide_by"],
        postgresql_where=_UNDECIDED,
        sqlite_where=_UNDECIDED,
    )
