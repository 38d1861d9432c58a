"""what several backends need: where a conversation is, and the items of those that no provider keeps."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# All that there were before: what the settings said of the server was not written down.
_RESPONSES = "responses - OPENAI_API_KEY"


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "runwright_conversations", sa.Column("place", sa.String(length=500), nullable=False, server_default=_RESPONSES)
    )
    op.add_column("runwright_attempts", sa.Column("reissued", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "runwright_items",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("conversation_id", sa.String(length=200), nullable=False),
        sa.Column("item", _JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["runwright_conversations.id"],
            name=op.f("fk_runwright_items_conversation_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runwright_items")),
    )
    op.create_index("ix_runwright_items_conversation_id", "runwright_items", ["conversation_id", "id"])
