"""the first tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from worker.dbtime import UtcDateTime

revision = "0001"
down_revision = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "runwright_assistants",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("config", _JSON, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runwright_assistants")),
    )
    op.create_index("uq_runwright_assistants_name_version", "runwright_assistants", ["name", "version"], unique=True)

    op.create_table(
        "runwright_batches",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("assistant", sa.String(length=100), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runwright_batches")),
    )
    op.create_table(
        "runwright_threads",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("next_seq", sa.Integer(), nullable=False),
        sa.Column("provider_id", sa.String(length=200), nullable=True),
        sa.Column("last_item", sa.String(length=200), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runwright_threads")),
    )
    op.create_table(
        "runwright_workers",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("node", sa.String(length=200), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("queues", _JSON, nullable=False),
        sa.Column("max_in_flight", sa.Integer(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("lease_until", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runwright_workers")),
    )
    op.create_table(
        "runwright_runs",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("thread_id", sa.String(length=200), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("assistant_id", sa.String(length=200), nullable=False),
        sa.Column("batch_id", sa.String(length=200), nullable=True),
        sa.Column("queue", sa.String(length=100), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("input", _JSON, nullable=False),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column("input_hash", sa.String(length=64), nullable=False),
        sa.Column("metadata", _JSON, nullable=False),
        sa.Column("store_result", sa.Boolean(), nullable=False),
        sa.Column("turn", sa.Boolean(), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=True),
        sa.Column("available_at", UtcDateTime(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("timeout", sa.Double(), nullable=False),
        sa.Column("deadline_at", UtcDateTime(), nullable=True),
        sa.Column("cancel_requested_at", UtcDateTime(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.Column("output_text", sa.Text(), nullable=True),
        sa.Column("error_code", sa.String(length=100), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("input_tokens", sa.Integer(), nullable=True),
        sa.Column("output_tokens", sa.Integer(), nullable=True),
        sa.Column("cost_usd", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["assistant_id"], ["runwright_assistants.id"], name=op.f("fk_runwright_runs_assistant_id")
        ),
        sa.ForeignKeyConstraint(["batch_id"], ["runwright_batches.id"], name=op.f("fk_runwright_runs_batch_id")),
        sa.ForeignKeyConstraint(["thread_id"], ["runwright_threads.id"], name=op.f("fk_runwright_runs_thread_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runwright_runs")),
    )
    op.create_index("ix_runwright_runs_batch_id", "runwright_runs", ["batch_id"], unique=False)
    op.create_index(
        "ix_runwright_runs_claimable",
        "runwright_runs",
        ["queue", "priority", "due_at"],
        unique=False,
        postgresql_where=sa.text("turn AND owner IS NULL"),
        sqlite_where=sa.text("turn AND owner IS NULL"),
    )
    op.create_index("ix_runwright_runs_created_at", "runwright_runs", ["created_at"], unique=False)
    op.create_index(
        "ix_runwright_runs_untold",
        "runwright_runs",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("store_result AND finished_at IS NOT NULL"),
        sqlite_where=sa.text("store_result AND finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_runwright_runs_owner",
        "runwright_runs",
        ["owner"],
        unique=False,
        postgresql_where=sa.text("owner IS NOT NULL"),
        sqlite_where=sa.text("owner IS NOT NULL"),
    )
    op.create_index(
        "ix_runwright_runs_waiting",
        "runwright_runs",
        ["thread_id", "seq"],
        unique=False,
        postgresql_where=sa.text("NOT turn AND status = 'queued'"),
        sqlite_where=sa.text("NOT turn AND status = 'queued'"),
    )
    op.create_index("uq_runwright_runs_idempotency_key", "runwright_runs", ["idempotency_key"], unique=True)
    op.create_index("uq_runwright_runs_thread_id_seq", "runwright_runs", ["thread_id", "seq"], unique=True)
    op.create_index(
        "uq_runwright_runs_turn",
        "runwright_runs",
        ["thread_id"],
        unique=True,
        postgresql_where=sa.text("turn"),
        sqlite_where=sa.text("turn"),
    )

    op.create_table(
        "runwright_attempts",
        sa.Column("run_id", sa.String(length=200), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=200), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.Column("intent_at", UtcDateTime(), nullable=True),
        sa.Column("intent_step", sa.Integer(), nullable=True),
        sa.Column("intent_after", sa.String(length=200), nullable=True),
        sa.Column("provider_id", sa.String(length=200), nullable=True),
        sa.Column("provider_ids", _JSON, nullable=False),
        sa.Column("unknown", sa.Boolean(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.String(length=100), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runwright_runs.id"], name=op.f("fk_runwright_attempts_run_id")),
        sa.PrimaryKeyConstraint("run_id", "number", name=op.f("pk_runwright_attempts")),
    )
    op.create_table(
        "runwright_documents",
        sa.Column("batch_id", sa.String(length=200), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("characters", sa.Integer(), nullable=True),
        sa.Column("run_id", sa.String(length=200), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["runwright_batches.id"], name=op.f("fk_runwright_documents_batch_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runwright_runs.id"], name=op.f("fk_runwright_documents_run_id")),
        sa.PrimaryKeyConstraint("batch_id", "position", name=op.f("pk_runwright_documents")),
    )
    op.create_table(
        "runwright_events",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("run_id", sa.String(length=200), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=50), nullable=False),
        sa.Column("data", _JSON, nullable=False),
        sa.Column("worker", sa.String(length=200), nullable=True),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runwright_runs.id"], name=op.f("fk_runwright_events_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runwright_events")),
    )
    op.create_index("ix_runwright_events_run_id", "runwright_events", ["run_id", "id"], unique=False)

    op.create_table(
        "runwright_messages",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("thread_id", sa.String(length=200), nullable=False),
        sa.Column("run_id", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("content", _JSON, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runwright_runs.id"], name=op.f("fk_runwright_messages_run_id")),
        sa.ForeignKeyConstraint(["thread_id"], ["runwright_threads.id"], name=op.f("fk_runwright_messages_thread_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runwright_messages")),
    )
    op.create_index("ix_runwright_messages_thread_id", "runwright_messages", ["thread_id", "id"], unique=False)

    op.create_table(
        "runwright_tool_calls",
        sa.Column("run_id", sa.String(length=200), nullable=False),
        sa.Column("call_id", sa.String(length=200), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("arguments", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("output", sa.Text(), nullable=True),
        sa.Column("error", sa.String(length=50), nullable=True),
        sa.Column("starts", sa.Integer(), nullable=False),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runwright_runs.id"], name=op.f("fk_runwright_tool_calls_run_id")),
        sa.PrimaryKeyConstraint("run_id", "call_id", name=op.f("pk_runwright_tool_calls")),
    )
