"""For every crash point of the product, what leads a worker to it: what is asked, its settings, what is done to it."""

import signal
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select

from tasks import batches
from tasks.batches import Document
from tasks.runs import RunHandle
from tests.nursery import Forked
from worker.lifecycle import TERMINAL, Status
from worker.models import Worker
from worker.producer import producer
from worker.store import batches as store_batches
from worker.store import claiming, leases, outbox


@dataclass(frozen=True, slots=True)
class Ask:
    """One run of a scenario: its text, how many provider runs it takes, how it ends."""

    text: str
    steps: int
    status: Status = Status.COMPLETED


HOOK = "shop.ended@hooks"
TOOLED = Ask("[[call look_up {}]][[call book {}]][[call put {}]][[say done]]", 2)
Act = Callable[[Forked, Sequence[RunHandle]], bool]


def nothing(_worker: Forked, _handles: Sequence[RunHandle]) -> bool:
    """Leave the worker to itself."""
    return True


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is asked on a thread, and what is done to the worker until it dies at its point.

    A second thread asks the first of the line as well. `act` is given these two and called again until it returns True.
    Runs `aside` are in a queue that the worker does not serve.
    """

    line: Sequence[Ask] = (TOOLED, Ask("[[say second]]", 1))
    env: Mapping[str, str] = field(default_factory=dict)
    act: Act = nothing
    aside: bool = False


def begun(handles: Sequence[RunHandle]) -> bool:
    """Tell whether the provider works on one of these runs."""
    return any(view.provider_ids and not view.ended for view in (handle.result() for handle in handles))


def cancel(_worker: Forked, handles: Sequence[RunHandle]) -> bool:
    """Cancel the runs once all are at the provider: the first cancel is the worker's death, and the rest would hang."""
    if not all(begun([handle]) for handle in handles):
        return False
    for handle in handles:
        handle.cancel()
    return True


def tell_to_stop(worker: Forked, handles: Sequence[RunHandle]) -> bool:
    """Send SIGTERM once a run waits at the provider."""
    if not begun(handles):
        return False
    worker.send(signal.SIGTERM)
    return True


def ids_of(worker: Forked) -> list[str]:
    """Return the ids under which a process is registered as a worker."""
    with producer().database.read() as connection:
        mine = select(Worker.id).where(Worker.pid == worker.pid)
        return list(connection.execute(mine).scalars())


def lose_a_claim(worker: Forked, handles: Sequence[RunHandle]) -> bool:
    """Claim runs in the worker's name, as if the answer to its claim had been lost."""
    found = ids_of(worker)
    for worker_id in found:
        _claim(worker_id, handles)
    return bool(found)


def leave_a_dead_worker(worker: Forked, handles: Sequence[RunHandle]) -> bool:
    """Claim runs in the name of a worker that dies at once."""
    if not ids_of(worker):
        return False
    dead = str(uuid.uuid4())
    with producer().database.write() as connection:
        leases.register(connection, dead, node="dead", pid=0, queues=[], room=1, lease=0.5)
    _claim(dead, handles)
    return True


def tell_again(_worker: Forked, handles: Sequence[RunHandle]) -> bool:
    """Have an end told once more whenever nothing waits to be told: any worker may take it, in the end this one."""
    if handles[0].status() in TERMINAL:
        with producer().database.write() as connection:
            if not outbox.waiting(connection):
                outbox.put(connection, outbox.RESULT, handles[0].id, {})
    return False


def end_a_batch(_worker: Forked, _handles: Sequence[RunHandle]) -> bool:
    """Have a batch end whenever none does: any worker may write its end, in the end this one."""
    with producer().database.read() as connection:
        ending = store_batches.ending(connection)
    if not ending:
        unreadable = Document("empty.pdf", None, "it holds no text")
        batches.submit(producer(), "clerk", "Read this", [unreadable], on_end=HOOK)
    return False


def _claim(worker_id: str, handles: Sequence[RunHandle]) -> None:
    queue = handles[0].result().queue
    with producer().database.write() as connection:
        assert claiming.claim(connection, worker_id, [queue], 2)


PLAIN = Scenario()
RETRIED = Scenario((Ask("[[fail server_error Again x1]][[say at last]]", 2), TOOLED))
ANSWER_LOST = Scenario(
    (Ask("[[drop before]][[say never]]", 0, Status.FAILED), TOOLED), {"RUNWRIGHT_ADOPTION_WAIT": "0.2"}
)
CANCELLED = Scenario((Ask("[[hang]]", 1, Status.CANCELLED), TOOLED), act=cancel)
APPROVED = Scenario((Ask("[[call pay {}]][[say paid]]", 2), TOOLED))
UNAPPROVED = Scenario((Ask("[[call pay {}]][[say paid]]", 2), TOOLED), {"RUNWRIGHT_APPROVAL_TIMEOUT": "0.2"})
PARKED = Scenario(
    (Ask("[[latency 3]][[say slow]]", 1), TOOLED),
    {"RUNWRIGHT_POLL_MIN": "2", "RUNWRIGHT_POLL_MAX": "2", "RUNWRIGHT_PARK_AFTER": "1"},
)
STOPPED = Scenario((Ask("[[latency 2]][[say slow]]", 1), TOOLED), act=tell_to_stop)
STRAYED = Scenario(act=lose_a_claim, aside=True)
BEREAVED = Scenario(act=leave_a_dead_worker, aside=True)
FLAWED = Scenario(env={"RUNWRIGHT_TOOL_MODULES": "tests.chaos.effects,tests.chaos.flaw"})
NOWHERE = "redis+socket:///nowhere?virtual_host=0"
TOLD = Scenario(act=tell_again)
BATCHED = Scenario(act=end_a_batch)
UNTOLD = Scenario(env={"RUNWRIGHT_RESULT_BACKEND": NOWHERE}, act=tell_again)

# Each has a .before and an .after, and one kill at each of them.
PLACES = {
    "commit.ask": APPROVED,
    "commit.claim": PLAIN,
    "commit.crashed": FLAWED,
    "commit.created": PLAIN,
    "commit.end": BATCHED,
    "commit.finish": PLAIN,
    "commit.give_back": UNTOLD,
    "commit.hand_over": STOPPED,
    "commit.intend": PLAIN,
    "commit.leave": STOPPED,
    "commit.mark_unknown": ANSWER_LOST,
    "commit.need_tools": PLAIN,
    "commit.park_until_answer": APPROVED,
    "commit.park_until_look": PARKED,
    "commit.reap": BEREAVED,
    "commit.refused": PLAIN,
    "commit.register": PLAIN,
    "commit.release": STRAYED,
    "commit.renew": PLAIN,
    "commit.retry": RETRIED,
    "commit.sent": TOLD,
    "commit.set_conversation": PLAIN,
    "commit.settle": PLAIN,
    "commit.start": PLAIN,
    "commit.start_cancelling": CANCELLED,
    "commit.take": TOLD,
    "commit.withdraw": PLAIN,
    "commit.write_off": UNAPPROVED,
    "outside.adopt": ANSWER_LOST,
    "outside.cancel": CANCELLED,
    "outside.create": PLAIN,
    "outside.deliver": TOLD,
    "outside.look": PLAIN,
    "outside.open_conversation": PLAIN,
    "outside.tool": PLAIN,
}
# While the provider answers 429 to every create; and after all others, so that nobody else reaps.
REFUSED, LAST = {"commit.withdraw", "commit.refused"}, {"commit.reap"}
