"""A run in its owner's hands: each write of a runner begins with hold(), and note() says what it did."""

from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select, update

from worker.errors import LostClaim
from worker.lifecycle import Status
from worker.models import Attempt, Run
from worker.response import Usage
from worker.store import budgets
from worker.store.claiming import Claim
from worker.store.journal import record

# Built once: making the statement anew costs more than running it, and each write of a runner begins with it.
_MINE: Any = (
    select(Run.status, Run.step, Run.cancel_requested_at)
    .where(Run.id == bindparam("run"), Run.owner == bindparam("worker"), Run.fence == bindparam("fence"))
    .with_for_update()
)
_ATTEMPT = update(Attempt).where(Attempt.run_id == bindparam("run"), Attempt.number == bindparam("attempt_number"))
_RUN = update(Run).where(Run.id == bindparam("run"))


def hold(connection: Connection, claim: Claim) -> Row[Any]:
    """Lock the run's row and return its status, step and cancel_requested_at; raises LostClaim unless it is ours."""
    shown = {"run": claim.run_id, "worker": claim.worker, "fence": claim.fence}
    row = connection.execute(_MINE, shown).one_or_none()
    if row is None:
        raise LostClaim(f"run {claim.run_id} is no longer held under fence {claim.fence}")
    return row


def status(connection: Connection, claim: Claim) -> Status:
    """Hold the run and return its status; raises LostClaim."""
    return Status(hold(connection, claim).status)


def change(connection: Connection, claim: Claim, **values: Any) -> None:
    """Update the run's row; call only after hold() in the same transaction."""
    connection.execute(_RUN.values(**values), {"run": claim.run_id})


def change_attempt(connection: Connection, claim: Claim, **values: Any) -> None:
    """Update the row of the run's attempt; call only after hold() in the same transaction."""
    connection.execute(_ATTEMPT.values(**values), {"run": claim.run_id, "attempt_number": claim.attempt})


def adopt(connection: Connection, claim: Claim, step: int) -> None:
    """Keep that the result of a step was found in the conversation; call only after hold()."""
    change_attempt(connection, claim, intent_step=None, adopted=Attempt.adopted + 1)
    note(connection, claim, "adopted", step=step)


def note(connection: Connection, claim: Claim, name: str, **data: Any) -> None:
    """Append an event of the run."""
    record(connection, claim.run_id, name, attempt=claim.attempt, worker=claim.worker, **data)


def add_usage(connection: Connection, claim: Claim, usage: Usage) -> None:
    """Add the tokens of one response to the run's, and what they cost; what is unknown adds nothing."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return
    change(
        connection,
        claim,
        input_tokens=func.coalesce(Run.input_tokens, 0) + usage.input_tokens,
        output_tokens=func.coalesce(Run.output_tokens, 0) + usage.output_tokens,
        cost_usd=None if usage.cost_usd is None else func.coalesce(Run.cost_usd, 0.0) + usage.cost_usd,
    )
    if claim.batch_id and usage.cost_usd:
        budgets.spend(connection, claim.batch_id, usage.cost_usd)
