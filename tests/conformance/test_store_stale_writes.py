"""A worker that has lost a run changes nothing any more: every write shows owner and fence, and is refused."""

from typing import Any

import pytest

from tests.conformance.ground import COMPLETE, PLACE, Ground
from worker.errors import LostClaim
from worker.lifecycle import Event
from worker.response import Asked, Opened, Usage
from worker.store import asking, deciding, leases, ledger, progress, settling
from worker.store.claiming import Claim
from worker.store.held import Unit
from worker.store.ledger import OpenCall
from worker.store.settling import End

FAILED = End(Event.FAIL, error_code="e", error_message="m", usage=Usage(5, 5, 0.5))
ASKED = [Asked("c9", "add", "{}")]
LEFT = OpenCall("r1", "c1", "add", "{}", "running", None, 1)

WRITES: dict[str, tuple[Unit, list[Any], dict[str, Any]]] = {
    "settle": (settling.settle, [COMPLETE], {}),
    "fail": (settling.settle, [FAILED], {}),
    "retry": (settling.retry, [0.0, FAILED, 60.0], {}),
    "start_cancelling": (settling.start_cancelling, [], {}),
    "park_until_answer": (settling.park_until_answer, [1.0], {}),
    "set_conversation": (progress.set_conversation, [Opened("conv_stale"), PLACE, ""], {}),
    "intend": (progress.intend, [0, "item_stale"], {}),
    "park_until_look": (settling.park_until_look, [60.0, 0.0, 60.0], {}),
    "crashed": (settling.crashed, [0.0, 3], {}),
    "withdraw": (progress.withdraw, [], {}),
    "refused": (progress.refused, ["connection_error", 3], {}),
    "mark_unknown": (progress.mark_unknown, [], {}),
    "created": (progress.created, [1, "resp_stale"], {}),
    "need_tools": (
        progress.need_tools,
        [],
        {"step": 1, "calls": ASKED, "effects": {}, "usage": Usage(5, 5, 0.5), "last_item": "item_stale"},
    ),
    "ask": (deciding.ask, [["c1"], "approval", 60.0], {}),
    "start": (ledger.start, [["c1"]], {}),
    "finish": (ledger.finish, ["c1"], {"status": "completed", "output": "stale", "error": None}),
    "write_off": (ledger.write_off, [LEFT, "stale", "in_doubt"], {}),
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
        ground.commit(claim, settling.retry, 0.0, FAILED, 60.0)
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
    ground.commit(
        claim,
        progress.need_tools,
        effects={},
        step=0,
        calls=[Asked("c1", "add", "{}")],
        usage=Usage(),
        last_item="item_1",
    )
    lose(ground, claim, how)
    before = ground.everything()
    for name, (unit, args, options) in WRITES.items():
        with pytest.raises(LostClaim, match=f"{claim.run_id} is no longer held under fence {claim.fence}"):
            ground.commit(claim, unit, *args, **options)
        assert ground.everything() == before, f"{name} wrote under a lost claim"


def test_every_write_of_an_owner_is_tried_here() -> None:
    """Expected: no unit of a held run is missing from the list."""
    no_units_of_their_own = {"enter", "keep_hosted", "close"}
    taking = {
        name
        for module in (progress, settling, ledger, deciding)
        for name, value in vars(module).items()
        if not name.startswith("_") and next(iter(getattr(value, "__annotations__", {})), None) == "hold"
    }
    assert taking - no_units_of_their_own == set(WRITES) - {"fail"}
