"""The nine statuses and their moves: whatever happens to a run, and in whatever order."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.lifecycle import ACTIVE, MOVES, REOPENABLE, TERMINAL, Event, InvalidMove, Status, after

PAIRS = list(itertools.product(Status, Event))
HISTORIES = st.lists(st.sampled_from(Event), max_size=60)


def walk(history: list[Event], start: Status = Status.QUEUED) -> list[Status]:
    """Return the statuses that a run goes through; an event that cannot happen to it is passed over."""
    statuses = [start]
    for event in history:
        if (statuses[-1], event) in MOVES:
            statuses.append(after(statuses[-1], event))
    return statuses


def reachable(start: Status, events: frozenset[Event] = frozenset(Event)) -> set[Status]:
    """Return every status that these events can lead to."""
    found, new = {start}, {start}
    while new:
        new = {after(status, event) for status, event in itertools.product(new, events) if (status, event) in MOVES}
        new -= found
        found |= new
    return found


def test_statuses_are_those_of_the_assistants_api() -> None:
    """Expected: exactly nine, each either active or ended."""
    words = "queued in_progress requires_action cancelling cancelled failed completed incomplete expired"
    assert [status.value for status in Status] == words.split()
    assert set(Status) == ACTIVE | TERMINAL
    assert ACTIVE.isdisjoint(TERMINAL)


@pytest.mark.parametrize(("status", "event"), PAIRS)
def test_every_pair_moves_or_is_refused(status: Status, event: Event) -> None:
    """Expected: a status, or an InvalidMove that names both; nothing else."""
    if (status, event) in MOVES:
        assert after(status, event) is MOVES[status, event]
        return
    words = f"a run that is {status.value} cannot {event.value.replace('_', ' ')}"
    with pytest.raises(InvalidMove, match=words) as refused:
        after(status, event)
    assert (refused.value.status, refused.value.event) == (status, event)


@given(HISTORIES)
def test_an_end_is_left_only_by_reopening(history: list[Event]) -> None:
    """Expected: after an end comes `queued` through a reopen, or nothing; after `completed` nothing at all."""
    for before, later in itertools.pairwise(walk(history)):
        if before in TERMINAL:
            assert (before in REOPENABLE, later) == (True, Status.QUEUED)
            assert MOVES[before, Event.REOPEN] is later


@given(HISTORIES)
def test_completed_is_never_left(history: list[Event]) -> None:
    """Expected: a run that has its result keeps it, whatever happens."""
    assert walk(history, start=Status.COMPLETED) == [Status.COMPLETED]


@given(HISTORIES)
def test_a_cancelling_run_ends_only_cancelled(history: list[Event]) -> None:
    """Expected: the first status after `cancelling` is `cancelled`, even where the provider says completed."""
    left = [status for status in walk(history, start=Status.CANCELLING) if status is not Status.CANCELLING]
    assert left[:1] in ([], [Status.CANCELLED])


@pytest.mark.parametrize("status", sorted(ACTIVE))
def test_every_active_run_can_end(status: Status) -> None:
    """Expected: an end is within reach, and `cancelled` is always one of them."""
    assert Status.CANCELLED in reachable(status)


@pytest.mark.parametrize("status", sorted(ACTIVE))
def test_a_claimed_run_ends_whatever_its_owner_has_to_report(status: Status) -> None:
    """Expected: after a claim each of the five ends is accepted at once: no report can leave a run without an end."""
    held = after(status, Event.CLAIM)
    for event in (Event.COMPLETE, Event.STOP_SHORT, Event.FAIL, Event.EXPIRE, Event.CANCEL):
        assert after(held, event) in TERMINAL


def test_every_status_happens() -> None:
    """Expected: a submitted run can come to each of the nine; none is there for show."""
    assert reachable(Status.QUEUED) == set(Status)


def test_only_a_claim_begins() -> None:
    """Expected: nothing but a claim leads from the queue into execution; without one a run can only be cancelled."""
    assert reachable(Status.QUEUED, frozenset(Event) - {Event.CLAIM}) == {Status.QUEUED, Status.CANCELLED}


@pytest.mark.parametrize("status", sorted(ACTIVE - {Status.QUEUED}))
def test_a_claim_goes_on_where_the_run_was(status: Status) -> None:
    """Expected: a run that was handed over or reaped keeps its status: no second attempt begins by it."""
    assert after(status, Event.CLAIM) is status


@pytest.mark.parametrize(("status", "allowed"), [(s, s in TERMINAL - {Status.COMPLETED}) for s in Status])
def test_what_can_be_reopened(status: Status, allowed: bool) -> None:
    """Expected: every end but a result."""
    assert ((status, Event.REOPEN) in MOVES) is allowed
    assert (status in REOPENABLE) is allowed
