"""A worker leaves the others their part of a burst, but keeps no run waiting for one that does not come."""

from worker.sharing import Share


def test_the_part_is_taken_and_then_the_rest() -> None:
    """Expected: the part for as long as the patience lasts, all of the limit after it, and patience anew."""
    share = Share(patience=0.5)
    assert [share.of(100, part, now) for part, now in ((30, 1.0), (0, 1.2), (0, 1.5), (0, 1.6))] == [30, 0, 0, 100]
    assert share.of(100, 0, 1.7) == 0


def test_what_is_not_shared_is_taken_at_once() -> None:
    """Expected: alone the whole limit; where nothing is due nothing, and the patience does not run meanwhile."""
    share = Share(patience=0.5)
    assert [share.of(100, 100, 1.0), share.of(100, None, 2.0), share.of(100, 40, 9.0)] == [100, 0, 40]
    assert [share.of(100, None, 9.1), share.of(100, 0, 99.0)] == [0, 0]
