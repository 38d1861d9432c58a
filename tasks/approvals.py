"""Questions to people from Python: what waits for approval or is in doubt, and the answers.

`by` says who decides: it is kept with the call and in the run's events. call_id None means the run's only question of
that kind. Each answer raises UsageError where it cannot be taken.
"""

from collections.abc import Callable
from typing import Any

from worker.producer import producer
from worker.store import deciding
from worker.store.deciding import Decided, Kind, Question


def pending(question: Kind | None = None, *, limit: int = 100) -> list[Question]:
    """Return the questions that can still be answered, those that expire first at the front."""
    with producer().database.read() as connection:
        return deciding.pending(connection, question=question, limit=limit)


def approve(run_id: str, call_id: str | None = None, *, by: str, reason: str | None = None) -> Decided:
    """Let a call run."""
    return _decide(deciding.approve, run_id, call_id, by=by, reason=reason)


def deny(run_id: str, call_id: str | None = None, *, by: str, reason: str | None = None) -> Decided:
    """Keep a call from running; the model reads the reason and goes on."""
    return _decide(deciding.deny, run_id, call_id, by=by, reason=reason)


def answer(
    run_id: str, call_id: str | None = None, *, by: str, output: str | None = None, error: str | None = None
) -> Decided:
    """Say what an interrupted call has come to: its output, or an error; the model reads it and goes on."""
    return _decide(deciding.answer, run_id, call_id, by=by, output=output, error=error)


def _decide(unit: Callable[..., Decided], *args: Any, **words: Any) -> Decided:
    door = producer()
    bell = door.doorbell  # where there is no broker, say so before anything is written
    with door.database.write() as connection:
        decided = unit(connection, *args, **words)
    if decided.queue:
        bell.ring([decided.queue])
    return decided
