"""The conditions of the partial indexes of worker/models.py, as queries use them.

In these very texts: SQLite takes a partial index only for the same words, and a bound value hides it.
"""

from sqlalchemy import text

TURN = text("turn")
CLAIMABLE = text("turn AND owner IS NULL")
# A claimable run is held back only in the first case; in the second it goes on, or its cancel is carried out. Only
# claimable runs have a due time. Without that index's own words PostgreSQL cannot take it, and step over a backlog.
BEGINS = text("due_at IS NOT NULL AND status = 'queued' AND cancel_requested_at IS NULL")
GOES_ON = text("due_at IS NOT NULL AND finished_at IS NULL AND (status <> 'queued' OR cancel_requested_at IS NOT NULL)")
IN_PROGRESS = text("status IN ('in_progress', 'requires_action', 'cancelling')")
WAITING = text("NOT turn AND status = 'queued'")
OWNED = text("owner IS NOT NULL")
UNENDED = text("batch_id IS NOT NULL AND finished_at IS NULL")
UNDECIDED = text("question IS NOT NULL AND decision IS NULL")
