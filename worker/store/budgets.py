"""The budget of a batch: when what is known of its cost has reached it, no further run of it is begun."""

from sqlalchemy import Connection, delete, func, select, update

from worker.models import Batch, Pause, Run, Spending
from worker.store import many
from worker.store.batches import check_budget, require
from worker.store.pausing import BUDGET

_ANY = select(Spending.id).limit(1)


def count(connection: Connection) -> None:
    """Add up what was spent since the last count, and hold back what has reached its budget; before each claim."""
    if connection.execute(_ANY).first() is None:
        return
    # Deleted and returned in one: of two that count at once each takes what the other does not.
    rows = connection.execute(delete(Spending).returning(Spending.batch_id, Spending.cost_usd)).all()
    for batch_id in sorted({row.batch_id for row in rows}):
        cost = sum(row.cost_usd for row in rows if row.batch_id == batch_id)
        spent = update(Batch).where(Batch.id == batch_id).values(spent_usd=Batch.spent_usd + cost)
        _judge(connection, batch_id, *connection.execute(spent.returning(Batch.spent_usd, Batch.budget_usd)).one())


def change(connection: Connection, batch_id: str, budget_usd: float | None) -> bool:
    """Set, raise, lower or, with None, end a budget; tells whether the batch is held back now. Raises UsageError."""
    check_budget(budget_usd)
    require(connection, batch_id)
    connection.execute(update(Batch).where(Batch.id == batch_id).values(budget_usd=budget_usd))
    cost = func.coalesce(select(func.sum(Run.cost_usd)).where(Run.batch_id == batch_id).scalar_subquery(), 0.0)
    # What is still to be counted stands in the runs already; read at once, so that none is taken twice.
    ahead = select(func.sum(Spending.cost_usd)).where(Spending.batch_id == batch_id).scalar_subquery()
    known = cost - func.coalesce(ahead, 0.0)
    spent = update(Batch).where(Batch.id == batch_id).values(spent_usd=known).returning(Batch.spent_usd)
    return _judge(connection, batch_id, connection.execute(spent).scalar_one(), budget_usd)


def _judge(connection: Connection, batch_id: str, spent: float, budget: float | None) -> bool:
    if budget is None or spent < budget:
        connection.execute(delete(Pause).where(Pause.kind == BUDGET, Pause.name == batch_id))
        return False
    reason = f"its cost of ${spent:.4f} has reached its budget of ${budget:g}; `runwright batch budget` raises it"
    row = many.INSERT[connection.dialect.name](Pause).values(kind=BUDGET, name=batch_id, reason=reason)
    connection.execute(row.on_conflict_do_update(index_elements=["kind", "name"], set_={"reason": reason}))
    return True
