"""when a step was last looked at, of a run that no worker holds until its next look."""

import sqlalchemy as sa
from alembic import op

from worker.dbtime import UtcDateTime

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Apply."""
    op.add_column("runwright_attempts", sa.Column("looked_at", UtcDateTime(), nullable=True))
