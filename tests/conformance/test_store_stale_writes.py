"""A worker that has lost a run changes nothing any more: every write shows owner and fence, and is refused."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from tests.conformance.ground import COMPLETE, Ground
from worker.errors import LostClaim
from worker.lifecycle import Event
from worker.response import Asked, Usage
from worker.store import asking, leases, ledger, progress, settling
from worker.store.claiming import Claim
from worker.store.ledger import OpenCall
from worker.store.settling import End

Write = Callable[[Connection, Claim], Any]
FAILED = End(Event.FAIL, error_code="e", error_message="m", usage=Usage(5, 5, 0.5))
ASKED = [Asked("c9", "add", "{}")]
LEFT = OpenCall("r1", "c1", "add", "{}", "running", None, 1)

WRITES: dict[str, Write] = {
    "settle": lambda connection, claim: settling.settle(connection, claim, COMPLETE),
    "fail": lambda connection, claim: settling.settle(connection, claim, FAILED),
    "retry": lambda connection, claim: settling.retry(connection, claim, 0.0, FAILED),
    "start_cancelling": settling.start_cancelling,
    "park": lambda connection, claim: settling.park(connection, claim, 1.0),
    "set_conversation": lambda connection, claim: progress.set_conversation(connection, claim, "conv_stale", ""),
    "intend": lambda connection, claim: progress.intend(connection, claim, 0, "item_stale"),
    "crashed": lambda connection, claim: settling.crashed(connection, claim, 0.0, 3),
    "withdraw": progress.withdraw,
    "mark_unknown": progress.mark_unknown,
    "created": lambda connection, claim: progress.created(connection, claim, 1, "resp_stale"),
    "need_tools": lambda connection, claim: progress.need_tools(
        connection, claim, step=1, calls=ASKED, effects={}, usage=Usage(5, 5, 0.5), last_item="item_stale"
    ),
    "start": lambda connection, claim: ledger.start(connection, claim, ["c1"]),
    "finish": lambda connection, claim: ledger.finish(
        connection, claim, "c1", status="completed", output="stale", error=None
    ),
    "write_off": lambda connection, claim: ledger.write_off(connection, claim, LEFT, "stale", "in_doubt"),
}

TAKERS = ["reaped", "reaped and taken", "handed over and taken again", "retried", "settled", "reopened and taken"]


def lose(ground: Ground, claim: Claim, how: str) -> None:
    """Let the run be taken from its claim in one of the ways in which that happens."""
    if how.startswith("reaped"):
        ground.end_lease()
        ground.write(leases.reap)
    if how == "reaped and taken":
        ground.take("w2")
    if how.startswith("handed over"):
        ground.hand_over(claim)
        ground.take("w1")
    if how == "retried":
        ground.write(settling.retry, claim, 0.0, FAILED)
    if how in {"settled", "reopened and taken"}:
        ground.settle(claim, FAILED)
    if how.startswith("reopened"):
        ground.write(asking.reopen, claim.run_id)
        ground.take("w1")


@pytest.mark.parametrize("how", TAKERS)
def test_a_stale_claim_writes_nothing(ground: Ground, how: str) -> None:
    """Expected: each of the writes raises LostClaim and not one row of any table is another."""
    ground.submit("t")
    ground.boot("w1"), ground.boot("w2")
    claim = ground.take("w1")
    ground.write(
        progress.need_tools,
        claim,
        effects={},
        step=0,
        calls=[Asked("c1", "add", "{}")],
        usage=Usage(),
        last_item="item_1",
    )
    lose(ground, claim, how)
    before = ground.everything()
    for name, write in WRITES.items():
        with pytest.raises(LostClaim, match=f"{claim.run_id} is no longer held under fence {claim.fence}"):
            ground.write(write, claim)
        assert ground.everything() == before, f"{name} wrote under a lost claim"


def test_every_write_of_an_owner_is_tried_here() -> None:
    """Expected: no function of progress and settling that takes a claim is missing from the list."""
    no_write_of_their_own = {"hold", "change", "change_attempt", "note", "enter"}
    taking = {
        name
        for module in (progress, settling, ledger)
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "").startswith("worker.store.")
        and list(getattr(value, "__annotations__", {}))[:2] == ["connection", "claim"]
    }
    assert taking - no_write_of_their_own == set(WRITES) - {"fail"}
