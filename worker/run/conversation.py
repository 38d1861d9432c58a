"""The conversation of a held run: begun where there is none, kept where its server does not, repaired."""

from collections.abc import Mapping, Sequence
from typing import Any

from tools.outcome import error_output
from worker.backends.base import Backend, NeedsTools
from worker.backends.places import Place
from worker.crashpoints import reach
from worker.errors import ProviderError
from worker.response import Answer, Item
from worker.run.calls import NEVER_RAN
from worker.run.pace import Pace
from worker.store import items, ledger, progress, reading


class Conversation:
    """What the steps of one held run go on, at the place that serves its assistant."""

    __slots__ = ("_backend", "_claim", "_elsewhere", "_items", "_pace", "_place", "_store", "id", "last_item")

    def __init__(self, pace: Pace, place: Place, backend: Backend, *, lost: bool) -> None:
        """Take up what the run's rows say; `lost` is that of a create whose answer did not come."""
        claim = pace.claim
        self._pace = pace
        self._claim = claim
        self._store = pace.parts.store
        self._place = place
        self._backend = backend
        self._elsewhere = claim.place is not None and claim.place != str(place)
        self._items: list[Item] | None = None
        self.id = None if self._elsewhere else claim.conversation
        self.last_item = claim.intent_after if lost else claim.last_item
        """The newest item, "" where there is none, None where nobody knows how the conversation ends."""

    async def opened(self) -> str:
        """Return its id at the place; one that is not there yet is begun, with what the thread holds."""
        return self.id or await self._open()

    async def _open(self) -> str:
        thread_id = self._claim.thread_id
        if self._elsewhere and await self._store.read(ledger.began_once, self._claim.run_id):
            told = "its conversation is at another backend; starting over could repeat a call that must not run twice"
            raise ProviderError("backend_changed", told)
        # Nothing was said before the first attempt at a thread's first run.
        fresh = self._claim.seq == 1 and self._claim.attempt == 1
        history = [] if fresh else list(filter(None, map(_said, await self._store.read(reading.messages, thread_id))))
        reach("outside.open_conversation.before")
        opened = await self._pace.patiently(lambda: self._backend.open_conversation(thread_id, history))
        reach("outside.open_conversation.after")
        self.id, self.last_item = opened.id, None if history else ""
        await self._pace.write(progress.set_conversation, opened, str(self._place), self.last_item)
        return opened.id

    async def kept(self) -> Sequence[Item]:
        """Return what was said so far, where we keep it."""
        if self._backend.can.keeps:
            return ()
        if self._items is None:
            self._items = await self._store.read(items.of, await self.opened())
        return self._items

    def goes_on(self, asked: NeedsTools) -> None:
        """Take in what a settled step has added."""
        self.last_item = asked.last_item
        if self._items is not None:
            self._items += asked.items

    async def repairs(self, answers: Sequence[Answer]) -> list[Answer]:
        """Learn how the conversation ends, and answer the calls there that no ledger knows: they would block it."""
        conversation = await self.opened()
        tail = await self._pace.patiently(lambda: self._backend.tail(conversation))
        if self.last_item is None:
            self.last_item = tail.last_item
        known = {answer.call_id for answer in answers}
        return [Answer(call_id, error_output(*NEVER_RAN)) for call_id in tail.open_calls if call_id not in known]


def _said(message: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return a message as any server takes it: of an answer only its text, None where it has none.

    What else an answer holds are files at the server that gave it, in that protocol's own form.
    """
    if message["role"] != "assistant":
        return message
    texts = [{"type": "text", "text": part["text"]} for part in message["content"] if part.get("type") == "text"]
    return {**message, "content": texts} if texts else None
