"""What is asked of providers apart from any run: is a response active, stop it, delete a conversation, what is there.

Light on purpose: worker.care.messenger, which carries errands out, loads the provider's client.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple


class Errand(StrEnum):
    """One kind of errand; what goes with it are steps at a provider, conversations to delete, or only places."""

    LOOK = "look"
    CANCEL = "cancel"
    DELETE = "delete"
    SURVEY = "survey"


class Target(NamedTuple):
    """Something at a provider, and where that is: the text of a worker.backends.places.Place."""

    id: str
    place: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one errand: `active` is what a look found, an error is the provider's, without a secret.

    `found` is what a survey has seen: worker.backends.survey.Seen.
    """

    target: Target
    active: bool = False
    error: str | None = None
    found: Mapping[str, Any] | None = None


Send = Callable[[Errand, Sequence[Target]], Iterator[Outcome]]
"""Carries out one errand for many targets and gives the outcomes as they come, in any order."""
