"""What a run and its provider tell each other, in our words: below the backends, and the store that keeps it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

CODE, SEARCH = "code_interpreter", "file_search"
"""The tools of a provider's own, by one name on all protocols."""
HOSTED = "hosted"
"""The effect, in the ledger, of a call that the provider made with such a tool: it is not ours to run or to answer."""

Item = Mapping[str, Any]
"""One entry of a conversation that we keep, as the protocol itself writes it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that the provider counted and their price; None where it did not say or the price is unknown."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """One call as the model asked for it; arguments is the model's JSON text, unchecked."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The output of one call, for the model; what was called where the conversation may not tell it."""

    call_id: str
    output: str
    name: str = field(default="", compare=False)
    arguments: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class HostedCall:
    """One call of a tool of the provider's own, which it has carried out itself."""

    call_id: str
    name: str
    arguments: str
    """JSON text: `code` of the code interpreter, `queries` or `ranking_options` of the file search, as far as told."""
    output: str | None
    """JSON text: a list of what came of it, in the protocol's form; None where the provider does not tell it."""
    error: str | None = None
    """The provider's word for a call that did not end well."""
    step: int | None = None
    """The step that made it, where the provider tells of several at once; None is the one in hand."""

    @classmethod
    def told(cls, call_id: str, name: str, said: Mapping[str, Any], output: Sequence[Any] | None, **more: Any) -> Self:
        """Return a call from what the provider said of it; what is None was not told."""
        given = {key: value for key, value in said.items() if value is not None}
        came = None if output is None else json.dumps(output, ensure_ascii=False)
        return cls(call_id, name, json.dumps(given, ensure_ascii=False), came, **more)


@dataclass(frozen=True, slots=True)
class Opened:
    """A new conversation; where we keep it, `items` are what it begins with."""

    id: str
    items: tuple[Item, ...] = ()
