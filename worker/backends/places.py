"""Where an assistant's model is served: a protocol, a server's address, and the variable that holds the key for it.

Pure: what submits an assistant reads it as well as what asks the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from worker.errors import ProviderError

DEFAULT_KEY = "OPENAI_API_KEY"
KEY_PREFIX = "RUNWRIGHT_KEY_"
"""Of variables with keys: a configuration can name no others, so none can send what else is in the environment."""

# What the assistant says for the model, by its keys; `model` and `instructions` all of them take.
_SAMPLING = ("temperature", "top_p", "max_output_tokens", "reasoning_effort")
_OURS = ("auto", "disabled", "last_messages", "module:function")  # where we keep the conversation
_TOOLS = ("parallel_tool_calls", "tool_choice", "response_format")


class Place(NamedTuple):
    """One server with one key; kept as text beside each conversation, to find its server again."""

    protocol: str
    base_url: str | None = None
    """None is the server of OPENAI_BASE_URL, or OpenAI's."""
    key: str | None = None
    """The variable that holds the key, None where the server asks for none."""

    @classmethod
    def of(cls, config: Mapping[str, Any], default: str) -> Self:
        """Return where an assistant is served; `default` is the protocol of those that do not say."""
        given = config.get("backend") or default
        if isinstance(given, str):
            return cls(given, None, DEFAULT_KEY)
        base_url = given.get("base_url")
        # The key of OpenAI is not sent to a server that somebody names beside it.
        key = given.get("api_key", None if base_url else DEFAULT_KEY)
        return cls(given["protocol"], base_url, key)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what str() gave."""
        protocol, base_url, key = text.split(" ")
        return cls(protocol, _named(base_url), _named(key))

    def check(self, config: Mapping[str, Any]) -> None:
        """Raise ProviderError where an assistant asks for what is not there: it was applied for another default."""
        lacking = sorted((FOR_A_MODEL & config.keys()) - PROTOCOLS[self.protocol].settings)
        if lacking:
            told = f"the backend {self.protocol!r} has no {lacking[0]!r}; RUNWRIGHT_BACKEND was another at its `apply`"
            raise ProviderError("unsupported", told)

    def __str__(self) -> str:
        return f"{self.protocol} {self.base_url or '-'} {self.key or '-'}"

    @property
    def can(self) -> "Capabilities":
        """Return what its protocol can do; of one of another version, which may be all, nothing there is given up."""
        return PROTOCOLS.get(self.protocol, _UNKNOWN)


def _named(text: str) -> str | None:
    return None if text == "-" else text


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a protocol can do, as far as a run notices."""

    told: str
    """What it is, for people."""
    settings: frozenset[str]
    """Keys of an assistant for its model that it takes."""
    truncations: tuple[str, ...]
    """What an assistant may say of `truncation`."""
    resumes: bool = False
    """A step goes on at the server without us and is found again by its id; else one that is left is gone."""
    keeps: bool = False
    """The server keeps the conversation; else we do."""
    holds: bool = False
    """A step that asks for tools stays open at the server until it has their outputs."""
    least_output: int = 16
    """The least `max_output_tokens` that it takes."""
    most_files: int | None = None
    """The most files that `hosted_tools` may give to the code interpreter, where there is a limit."""
    most_stores: int | None = None
    """The most vector stores that they may give to the file search, where there is a limit."""
    expires: float | None = None
    """Seconds after which what is held ends by itself."""


def _settings(*names: str) -> frozenset[str]:
    return frozenset({"model", "instructions", *_SAMPLING, *_TOOLS, *names})


PROTOCOLS: Mapping[str, Capabilities] = {
    "responses": Capabilities(
        "OpenAI's Responses in background mode, with conversations and the provider's own tools",
        _settings("truncation", "service_tier", "hosted_tools", "completion_window"),
        ("auto", "disabled"),
        resumes=True,
        keeps=True,
        most_files=50,  # AutoCodeInterpreterToolParam; of vector stores OpenAI's document names no limit
    ),
    "responses-stateless": Capabilities(
        "Responses of servers that keep nothing: one call for each step, the history from our database",
        _settings("truncation", "context_window", "service_tier"),
        _OURS,
    ),
    "chat": Capabilities(
        "chat completions of any compatible server: one call for each step, the history from our database",
        _settings("truncation", "context_window", "service_tier"),
        _OURS,
    ),
    "assistants": Capabilities(
        "Assistants v2 of compatible servers: threads, runs, requires_action and the server's own tools",
        _settings("truncation", "additional_instructions", "max_prompt_tokens", "hosted_tools"),
        ("auto", "last_messages"),
        resumes=True,
        keeps=True,
        holds=True,
        least_output=256,
        most_files=20,  # CreateAssistantRequest, both
        most_stores=1,
        expires=600.0,
    ),
}
"""By the word that an assistant's `backend`, or RUNWRIGHT_BACKEND, says."""
_UNKNOWN = Capabilities("a protocol of another version", frozenset(), (), resumes=True, keeps=True, holds=True)
FOR_A_MODEL = frozenset().union(*(one.settings for one in PROTOCOLS.values()))
"""Every key of an assistant that some protocol takes for its model."""
