"""What a run says while it goes on, over Redis streams: pieces of text, and that its journal has something new.

Never the truth: Redis may lose all of it, and the journal and the run's row still tell what has happened.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any, NamedTuple

import redis
import structlog
from redis.asyncio import Redis as AsyncRedis

from worker import urls
from worker.backends.places import Place
from worker.broker.outlet import Outlet
from worker.settings import Settings
from worker.store.claiming import Claim

_log = structlog.get_logger(__name__)
TEXT = "text"
_GATHER = 0.05  # seconds; what a run says meanwhile is one entry
_MOST = 10_000  # entries of one run, about; the oldest give way
_KEPT = 3600  # seconds after the last entry
_WAITING = 100_000  # entries that wait to be sent; the oldest give way
_AT_ONCE = 500
# Of the engine's events, those that follow a commit with a row in the journal; run.ended has the status for a name.
_JOURNAL = {
    "run.claimed": "claimed",
    "run.created": "created",
    "run.requires_action": "requires_action",
    "tool.finished": "tool_finished",
    "run.asks": "asked",
    "run.parked": "parked",
    "run.retried": "retried",
    "run.ended": "",
}

Mark = tuple[int, int]
"""A place in a stream, as Redis numbers its entries."""


class Entry(NamedTuple):
    """A piece of text, or the name of a row that the journal has now; a later fence makes earlier ones void.

    offset counts the characters that the step has said before.
    """

    fence: int
    name: str
    attempt: int = 0
    step: int = 0
    offset: int = 0
    text: str = ""


def is_published(claim: Claim, settings: Settings) -> bool:
    """Tell whether a run is to be told of as it goes on: one that is followed, and of no batch unless all are.

    A step that lives on its connection is followed in any case, where its assistant does not say otherwise.
    """
    if settings.publish == "off" or (claim.batch_id is not None and settings.publish != "all"):
        return False
    said: bool | None = claim.config.get("stream")
    if said is not None or settings.stream == "on":
        return said is not False
    return not Place.of(claim.config, settings.backend).can.resumes


def voice(claim: Claim, settings: Settings, emit: Callable[..., None], step: int) -> Callable[[str], None] | None:
    """Return what is given the text of a step, from its beginning, piece by piece; None where nobody is to hear it."""
    if not is_published(claim, settings):
        return None
    offset = 0

    def say(text: str) -> None:
        nonlocal offset
        emit("run.text", step=step, offset=offset, text=text)
        offset += len(text)

    return say


class Live:
    """The streams: one for each run that is told of, gone an hour after its last entry."""

    def __init__(self, settings: Settings) -> None:
        """Prepare; raises SettingsError where there is no broker."""
        self._broker = settings.broker_url()
        self._redis = urls.redis_client(self._broker)

    def publish(self, told: Mapping[str, Iterable[Entry]]) -> None:
        """Append to the streams of these runs, in one round trip."""
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for run_id, entries in told.items():
                    for entry in entries:
                        said: dict[Any, Any] = entry._asdict()
                        pipeline.xadd(_key(run_id), said, maxlen=_MOST, approximate=True)
                    pipeline.expire(_key(run_id), _KEPT)
                pipeline.execute()
        except (redis.RedisError, OSError) as error:
            _log.warning("live_failed", error=type(error).__name__)

    def read(self, run_id: str, after: Mark, seconds: float) -> list[tuple[Mark, Entry]] | None:
        """Return what was said behind a mark, waiting so long for it; None where Redis does not answer."""
        try:
            return _heard(self._redis.xread(_from(run_id, after), count=_AT_ONCE, block=_block(seconds)))
        except (redis.RedisError, OSError):
            return None

    def connect(self) -> AsyncRedis:
        """Return a client for `read_async`, to be closed on the loop that uses it."""
        return urls.async_redis_client(self._broker, 2.0)


async def read_async(client: AsyncRedis, run_id: str, after: Mark, seconds: float) -> list[tuple[Mark, Entry]] | None:
    """Return what `Live.read` does, beside a running loop."""
    try:
        return _heard(await client.xread(_from(run_id, after), count=_AT_ONCE, block=_block(seconds)))
    except (redis.RedisError, OSError):
        return None


def _from(run_id: str, after: Mark) -> dict[Any, Any]:
    return {_key(run_id): f"{after[0]}-{after[1]}"}


def _block(seconds: float) -> int | None:
    return round(seconds * 1000) or None  # 0 would wait for ever


def _heard(found: Any) -> list[tuple[Mark, Entry]]:
    pages = found.values() if isinstance(found, dict) else [page for _, page in found or ()]
    return [(_mark(ident), _entry(fields)) for page in pages for ident, fields in _flat(page)]


def _flat(page: Any) -> Any:
    """RESP3 gives each stream's entries in a list of their own."""
    return page[0] if page and page[0] and isinstance(page[0][0], list | tuple) else page


def _key(run_id: str) -> str:
    return f"runwright:live:{run_id}"


def _mark(ident: bytes) -> Mark:
    milliseconds, _, number = ident.decode().partition("-")
    return int(milliseconds), int(number)


def _entry(fields: Mapping[bytes, bytes]) -> Entry:
    told = {name.decode(): value.decode() for name, value in fields.items()}
    numbers = {name: int(told[name]) for name in ("fence", "attempt", "step", "offset")}
    return Entry(name=told["name"], text=told["text"], **numbers)


class Broadcast:
    """Hears the engine and publishes from the outlet's thread; of a run that is not published it only asks that."""

    def __init__(self, settings: Settings, live: Live, outlet: Outlet) -> None:
        self._settings = settings
        self._live = live
        self._outlet = outlet
        self._waiting: deque[tuple[str, Entry]] = deque(maxlen=_WAITING)

    def __call__(self, name: str, fields: Mapping[str, Any]) -> None:
        """Keep what is to be published, to be sent soon with what comes meanwhile."""
        if name == "run.text":  # the chain emits it for none but published runs
            claim: Claim = fields["claim"]
            said = Entry(claim.fence, TEXT, claim.attempt, fields["step"], fields["offset"], fields["text"])
        elif name in _JOURNAL and is_published(claim := fields["claim"], self._settings):
            said = Entry(claim.fence, _JOURNAL[name] or fields["status"])
        else:
            return
        self._waiting.append((claim.run_id, said))
        self._outlet.soon(self._publish, _GATHER)

    def _publish(self) -> None:
        told: dict[str, list[Entry]] = {}
        while self._waiting:
            run_id, entry = self._waiting.popleft()
            told.setdefault(run_id, []).append(entry)
        self._live.publish({run_id: _joined(entries) for run_id, entries in told.items()})


def _joined(entries: Iterable[Entry]) -> list[Entry]:
    """Make one entry of the pieces of text that follow each other."""
    joined: list[Entry] = []
    for (name, *_), group in groupby(entries, lambda one: (one.name, one.fence, one.attempt, one.step)):
        pieces = list(group)
        joined += [pieces[0]._replace(text="".join(one.text for one in pieces))] if name == TEXT else pieces
    return joined
