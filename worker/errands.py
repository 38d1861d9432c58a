"""What care asks of the provider apart from any run: is a response still active, stop it, delete a conversation.

Light on purpose: worker.messenger, which carries errands out, loads the provider's client.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Errand(StrEnum):
    """One kind of errand; the ids that go with it are responses, or conversations to delete."""

    LOOK = "look"
    CANCEL = "cancel"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one errand: `active` is what a look found, an error is the provider's, without a secret."""

    id: str
    active: bool = False
    error: str | None = None


Send = Callable[[Errand, Sequence[str]], Iterator[Outcome]]
"""Carries out one errand for many ids and gives the outcomes as they come, in any order."""
