"""What is measured: contenders side by side, one after another and again, so that a slow spell hits all of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from benchmarks import backlog, idling, measure, parking, startup
from benchmarks.measure import Load, Row
from benchmarks.servers import Ground

_HOT: dict[str, Any] = {"poll_min": 0.02}  # latency 0: the first look is late enough


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of it: the small one takes minutes, the full one is for the table."""

    full: bool
    repeats: int
    runs: int

    def many(self, small: int, full: int) -> int:
        """Return the number for this scale."""
        return full if self.full else small


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of a scenario."""

    name: str
    go: Callable[[], Row]


Contenders = Iterator[Contender]


def cpu(ground: Ground, scale: Scale) -> Contenders:
    """CPU per run at latency 0: nothing waits, so it is all work."""
    load = Load(runs=scale.runs)
    fewer = replace(load, runs=max(50, scale.runs // 3))
    for kind in ("sqlite", "postgresql"):
        yield Contender(f"worker, {kind}", partial(measure.worker, ground, kind, load, **_HOT))
    yield Contender("script, plain aiohttp", partial(measure.script, ground, "plain", load))
    yield Contender("script, the worker's client", partial(measure.script, ground, "client", load))
    yield Contender("script, raw requests of the SDK", partial(measure.script, ground, "lean", fewer))
    yield Contender("script, stock SDK", partial(measure.script, ground, "stock", fewer))
    for pool, slots in (("prefork", scale.many(4, 8)), ("threads", scale.many(32, 100))):
        go = partial(measure.tutorial, ground, pool, slots, fewer)
        yield Contender(f"tutorial's loop, {pool} -c {slots}", go)


def driver(ground: Ground, scale: Scale) -> Contenders:
    """The part of the database's driver, SQLite itself among it: what is left where nothing else costs anything."""
    load = Load(runs=scale.runs)
    for kind in ("sqlite", "postgresql"):
        counts = ground.folder / f"counts-{kind}"
        yield Contender(f"worker, {kind}", partial(measure.worker, ground, kind, load, counts=counts, **_HOT))
    yield Contender("script, plain aiohttp", partial(measure.script, ground, "plain", load))


def latency(ground: Ground, scale: Scale) -> Contenders:
    """A thousand runs at once of about 5 s each: how late is a result, and how many requests does that take."""
    load = Load(runs=1000, latency=5.0, spread=0.4, pause=0.5, limit=180.0)
    for kind in ("sqlite", "postgresql"):
        yield Contender(f"worker, {kind}", partial(measure.worker, ground, kind, load))
    yield Contender("script, plain aiohttp, every 0.5 s", partial(measure.script, ground, "plain", load))
    if scale.full:
        yield Contender("script, stock SDK, every 0.5 s", partial(measure.script, ground, "stock", load))
        go = partial(measure.tutorial, ground, "threads", 100, load)
        yield Contender("tutorial's loop, threads -c 100", go)


def streams(ground: Ground, _scale: Scale) -> Contenders:
    """The same thousand, each step followed on a stream of its own: what must be told at once."""
    load = Load(runs=1000, latency=5.0, spread=0.4, limit=180.0)
    for kind in ("sqlite", "postgresql"):
        go = partial(measure.worker, ground, kind, load, stream="on", stream_limit=load.runs)
        yield Contender(f"worker, {kind}", go)


def long(ground: Ground, scale: Scale) -> Contenders:
    """Runs that take long: requests per run, beside the loop that looks every half second."""
    seconds = 60.0 if scale.full else 20.0
    load = Load(runs=100, latency=seconds, spread=0.2, pause=0.5, limit=4 * seconds + 60)
    yield Contender(f"worker, sqlite, {seconds:g} s", partial(measure.worker, ground, "sqlite", load))
    go = partial(measure.tutorial, ground, "threads", 100, load)
    yield Contender(f"tutorial's loop, threads -c 100, {seconds:g} s", go)


def memory(ground: Ground, scale: Scale) -> Contenders:
    """Many runs in flight in one worker process: memory, connections, CPU of waiting."""
    for runs in (1000, 5000, 10_000) if scale.full else (500, 2000):
        load = Load(runs=runs, latency=60.0 if scale.full else 30.0, spread=0.2, limit=400.0)
        yield Contender(f"{runs:,} in flight", partial(measure.worker, ground, "postgresql", load))


def parked(ground: Ground, scale: Scale) -> Contenders:
    """Runs that wait for hours in a completion window, begun by one worker process that holds none of them."""
    runs, hurry = (100_000, 1.0) if scale.full else (2000, 20.0)
    yield Contender(f"{runs:,} parked", partial(parking.parked, ground, runs, hurry))


def workers(ground: Ground, scale: Scale) -> Contenders:
    """One worker process and two, each held to two fifths of a core, so that two cores are enough for both."""
    load = Load(runs=2 * scale.runs)
    for count in (1, 2):
        go = partial(measure.worker, ground, "postgresql", load, count=count, part=0.4, **_HOT)
        yield Contender(f"{count} worker{'s' * (count > 1)}", go)


def idle(ground: Ground, _scale: Scale) -> Contenders:
    """Workers that have had nothing to do for a minute: what all of them ask of PostgreSQL in the next."""
    for count in (1, 4):
        yield Contender(f"{count} worker{'s' * (count > 1)}", partial(idling.idle, ground, count))


def submit(ground: Ground, scale: Scale) -> Contenders:
    """How fast runs are accepted: in bulk and one by one, each with its commit."""
    for kind in ("sqlite", "postgresql"):
        yield Contender(f"in bulk, {kind}", partial(backlog.bulk, ground, kind, scale.many(5000, 10_000)))
        yield Contender(f"single, {kind}", partial(backlog.single, ground, kind, scale.many(200, 1000)))


def claim(ground: Ground, scale: Scale) -> Contenders:
    """What taking 100 runs costs, with few and with many in the queue, and while another queue is paused."""
    for kind in ("sqlite", "postgresql"):
        for rows in (1000, 1_000_000) if scale.full else (1000, 20_000):
            for paused in (False, True):
                go = partial(backlog.claim, ground, kind, rows, paused=paused)
                yield Contender(f"{rows:,} queued{', a pause' * paused}, {kind}", go)


def start(ground: Ground, scale: Scale) -> Contenders:
    """What a command costs before the prompt is back: the median of ten starts."""
    commands = {
        "python -c pass": ("-c", "pass"),
        "runwright --help": (*startup.RUNWRIGHT, "--help"),
        "runwright submit, sqlite": (*startup.RUNWRIGHT, "submit", "--assistant", "bench", "hello"),
    }
    for name, arguments in commands.items():
        yield Contender(name, partial(startup.python, ground, *arguments))


Scenario = Callable[[Ground, Scale], Contenders]
SCENARIOS: dict[str, Scenario] = {
    each.__name__: each
    for each in (cpu, driver, latency, streams, long, memory, parked, workers, idle, submit, claim, start)
}
# Long enough for one repetition to say what there is to say.
ONCE = {"long", "memory", "parked", "idle", "claim"}


def carried_out(contenders: Sequence[Contender], repeats: int, show: Callable[[str], None]) -> list[Row]:
    """Measure A B C A B C …; what fails is told in its row and costs nobody else theirs."""
    rows: dict[str, Row] = {each.name: {"name": each.name, "repeats": [], "failed": []} for each in contenders}
    for repeat in range(repeats):
        for each in contenders:
            show(f"{each.name} ({repeat + 1} of {repeats})")
            try:
                rows[each.name]["repeats"].append(each.go())
            except (Exception, AssertionError) as error:  # noqa: BLE001 - whatever fails, the others are measured
                rows[each.name]["failed"].append(f"{type(error).__name__}: {error}"[:500])
    return list(rows.values())
