"""What a backend must do, and the four things it may answer when it is asked how a step is doing."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tools.registry import Tool
from worker.backends.bounds import Readers
from worker.backends.places import Capabilities
from worker.response import Answer, Asked, HostedCall, Item, Opened, Usage


@dataclass(frozen=True, slots=True)
class Pending:
    """The provider works on it, or has not begun to."""

    queued: bool = False
    look_after: float | None = None
    """Seconds after which the provider asks to be looked at again, where it says so."""


@dataclass(frozen=True, slots=True)
class NeedsTools:
    """The model asks for functions; the next step gives it their outputs."""

    calls: tuple[Asked, ...]
    usage: Usage
    last_item: str | None
    items: tuple[Item, ...] = ()
    """What the step adds to a conversation that we keep: its input, then what the model said."""
    hosted: tuple[HostedCall, ...] = ()
    """What the provider's own tools did on the way, as far as it is told here."""


@dataclass(frozen=True, slots=True)
class Done:
    """The model has answered; `stopped_by` is set where the provider cut the answer short."""

    text: str
    usage: Usage
    last_item: str | None
    stopped_by: str | None = None
    at: float | None = None
    """When it ended there, in seconds since the epoch, where the provider says so."""
    items: tuple[Item, ...] = ()
    """As of NeedsTools."""
    hosted: tuple[HostedCall, ...] = ()
    """As of NeedsTools."""
    parts: tuple[Item, ...] = ()
    """The answer as parts of a message, where it holds more than text: images, and files that it cites or made."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The provider gave up; a transient failure may pass on a further attempt."""

    code: str
    message: str
    usage: Usage
    transient: bool
    hosted: tuple[HostedCall, ...] = ()
    """As of NeedsTools."""

    @classmethod
    def after(cls, last: "Ended | None", code: str, message: str, *, transient: bool) -> "Failed":
        """Return a failure of our own; what the provider did until then has been paid for, and counts."""
        used, hosted = (last.usage, last.hosted) if last else (Usage(), ())
        return cls(code, message, used, transient, hosted)


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a conversation: its newest item ("" where it has none) and the calls that have no output there."""

    last_item: str
    open_calls: tuple[str, ...]


Ended = NeedsTools | Done | Failed
Look = Pending | Ended


class Following(Protocol):
    """A connection on which the provider tells the end of a step as soon as it is there."""

    @property
    def broken(self) -> bool:
        """Whether it will tell nothing more, so that the step is to be looked at."""
        ...

    async def ended(self, seconds: float) -> Ended | None:
        """Return how the step ended, None where it has not so soon, or where the connection is broken."""
        ...

    def close(self) -> None:
        """Close the connection; the step goes on at the provider."""
        ...


@dataclass(frozen=True, slots=True)
class Created:
    """A step that the provider has taken on; request_id is what its support asks for.

    The id of a step that goes on from another one may be that one's: a run of the Assistants API has one for all.
    """

    id: str
    request_id: str | None = None
    following: Following | None = None
    """Whoever takes it closes it."""
    keeps_slot: bool = False
    """The place it was created in is given back by closing `following`."""
    headers: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Of the answer, found whatever their case."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run as the provider is to carry it out; the input is empty after the first.

    A step without input and without `previous` goes on from calls that an earlier attempt has asked for.
    """

    run_id: str
    thread_id: str
    attempt: int
    number: int
    conversation: str
    config: Mapping[str, Any]
    tools: Sequence[Tool]
    input: Sequence[Any]
    answers: Sequence[Answer]
    stream: bool = False
    """Follow it, where the backend can and has room for one more."""
    history: Sequence[Item] = ()
    """The conversation so far, where we keep it."""
    previous: str | None = None
    """The provider's id of the step before, where that one is still open for the answers."""
    earlier: Sequence[Answer] = ()
    """What steps before were answered, in order, for where such a step has ended and another has to go on from it."""
    on_text: Callable[[str], None] | None = None
    """Is given the text of the answer piece by piece, where the step is followed."""

    @property
    def identity(self) -> dict[str, str]:
        """Return the metadata that say at the provider whose step it is."""
        return {"run_id": self.run_id, "attempt": str(self.attempt), "step": str(self.number)}


class Backend(Protocol):
    """A provider protocol; every method raises ProviderError and nothing else of the provider's."""

    can: Capabilities
    slots: asyncio.Semaphore
    """The places of the requests that are open at once; create is called in one of them."""
    readers: Readers
    """The places of the looks that are open at once, which a look takes by itself."""

    async def open_conversation(self, thread_id: str, history: Sequence[Mapping[str, Any]] = ()) -> Opened:
        """Create what holds a thread's messages, with those that there are: {"role", "content"} of text parts."""
        ...

    async def create(self, step: Step) -> Created:
        """Start a step once, without any retry, inside a slot."""
        ...

    async def adopt(self, step: Step, after: str) -> Created | Ended | None:
        """Return a step whose id was never learnt, or what it came to; None where nothing of it is there (yet).

        Where only the conversation can tell, items behind `after` ("" for all) that begin with exactly its input are
        its result.
        """
        ...

    async def tail(self, conversation: str) -> Tail:
        """Return how a conversation ends, which nobody can tell after a response that did not end well."""
        ...

    async def look(self, provider_id: str) -> Look:
        """Return how a step is doing."""
        ...

    async def cancel(self, provider_id: str) -> None:
        """Ask the provider to stop; the step still has to be looked at until it has ended."""
        ...

    async def delete_conversation(self, conversation: str) -> None:
        """Delete a conversation and what it holds; one that is not there any more is as good as deleted."""
        ...
