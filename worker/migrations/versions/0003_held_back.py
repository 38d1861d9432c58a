"""what holds queued runs back: caps of assistants, budgets of batches, and the indexes that step over it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_BEGINS = sa.text("due_at IS NOT NULL AND status = 'queued' AND cancel_requested_at IS NULL")
_GOES_ON = sa.text(
    "due_at IS NOT NULL AND finished_at IS NULL AND (status <> 'queued' OR cancel_requested_at IS NOT NULL)"
)
_IN_PROGRESS = sa.text("status IN ('in_progress', 'requires_action', 'cancelling')")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "runwright_caps",
        sa.Column("assistant", sa.String(length=100), nullable=False),
        sa.Column("max_active", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("assistant", name=op.f("pk_runwright_caps")),
    )
    op.add_column("runwright_batches", sa.Column("budget_usd", sa.Double(), nullable=True))
    op.add_column("runwright_batches", sa.Column("spent_usd", sa.Double(), nullable=False, server_default="0"))
    op.create_table(
        "runwright_spendings",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("batch_id", sa.String(length=200), nullable=False),
        sa.Column("cost_usd", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["runwright_batches.id"], name=op.f("fk_runwright_spendings_batch_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runwright_spendings")),
    )
    _index("ix_runwright_runs_begins", _BEGINS, "queue", "priority", "assistant_id", "batch_id", "due_at")
    _index("ix_runwright_runs_goes_on", _GOES_ON, "queue", "priority", "due_at")
    _index("ix_runwright_runs_in_progress", _IN_PROGRESS, "assistant_id")


def _index(name: str, where: sa.TextClause, *columns: str) -> None:
    op.create_index(name, "runwright_runs", list(columns), postgresql_where=where, sqlite_where=where)
