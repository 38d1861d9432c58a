"""Workers with room share a burst: each finds in the rows how much of what is due is its part."""

from tests.conformance.ground import Ground
from worker.store import claiming, leases, pausing, submitting
from worker.store.pausing import Kind


def boot(ground: Ground, *names: str, room: int = 1000) -> None:
    for name in names:
        ground.write(leases.register, name, node=name, pid=1, queues=["default"], room=room, lease=600.0)


def burst(ground: Ground, count: int) -> None:
    ground.write(submitting.submit, [ground.new(None) for _ in range(count)])


def share(ground: Ground, worker: str, held: int, limit: int = 100) -> int | None:
    with ground.database.read() as connection:
        return claiming.share(connection, worker, ["default"], held, limit)


def take(ground: Ground, worker: str) -> int:
    """Let a worker claim chunk after chunk until it should leave the rest to others; returns how many it has."""
    held = 0
    while part := share(ground, worker, held):
        held += len(ground.claim(worker, limit=part))
    return held


def test_four_workers_share_a_burst_evenly(ground: Ground) -> None:
    """Expected: one after the other takes a quarter, in chunks, and nothing is left."""
    burst(ground, 400)
    boot(ground, "w1", "w2", "w3", "w4")
    assert [take(ground, worker) for worker in ("w1", "w2", "w3", "w4")] == [100, 100, 100, 100]
    assert share(ground, "w1", 100) is None


def test_who_has_much_leaves_the_next_to_others(ground: Ground) -> None:
    """Expected: the one that came first takes nothing until another holds as much."""
    burst(ground, 60)
    boot(ground, "w1")
    assert take(ground, "w1") == 60
    boot(ground, "w2")
    burst(ground, 40)
    assert share(ground, "w1", 60) == 0
    assert take(ground, "w2") == 40


def test_who_cannot_take_part_does_not_count(ground: Ground) -> None:
    """Expected: all is mine beside a worker that is full, one that is dead and one that serves other queues."""
    boot(ground, "full", room=1)
    burst(ground, 1)
    ground.claim("full")
    boot(ground, "dead", "w1")
    ground.end_lease("dead")
    ground.boot("elsewhere", queues=("slow",))
    burst(ground, 50)
    assert share(ground, "w1", 0) == 100


def test_a_few_runs_are_not_shared(ground: Ground) -> None:
    """Expected: whoever was rung takes a handful at once, also one that holds more than others."""
    boot(ground, "w1", "w2")
    burst(ground, 30)
    ground.claim("w1", limit=30)
    burst(ground, 3)
    assert share(ground, "w1", 30) == 100


def test_nothing_that_may_begin_is_nothing_due(ground: Ground) -> None:
    """Expected: None where nothing is due, and where all that is due is paused."""
    boot(ground, "w1")
    assert share(ground, "w1", 0) is None
    burst(ground, 1)
    ground.write(pausing.pause, Kind.QUEUE, "default")
    assert share(ground, "w1", 0) is None


def test_what_nobody_else_serves_is_not_left_to_anybody(ground: Ground) -> None:
    """Expected: a worker that alone serves a queue takes what is due there, whoever else has room."""
    ground.write(submitting.submit, [ground.new(None, queue="mine") for _ in range(30)])
    boot(ground, "w2")
    ground.write(leases.register, "w1", node="w1", pid=1, queues=["mine", "default"], room=1000, lease=600.0)
    with ground.database.read() as connection:
        assert claiming.share(connection, "w1", ["mine", "default"], 60, 20) == 20
