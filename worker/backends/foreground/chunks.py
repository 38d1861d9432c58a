"""What is read of a chat completion, whole or in chunks, checked; whatever else it holds is left alone.

Only `choices[0]` is read, since one is asked for. What a server may leave out, or fill with null, has a default.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict

from worker.backends.transport.bodies import Count, Ident, Kept, Lenient, NullIsEmpty


class Part(BaseModel):
    """One part of what is said, where a server sends parts in place of text."""

    type: str = "text"
    text: str | None = None


class Function(BaseModel):
    """A function that is asked for, or the next piece of that; some servers send the arguments as an object."""

    name: str | None = None
    arguments: str | Annotated[dict[str, Any], Kept] | None = None


class CallPart(BaseModel):
    """A call, or the next piece of one; what else it holds, such as a signature, goes back with it."""

    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, Annotated[Any, Kept]]
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None


class Said(BaseModel):
    """A message of the model, or the next piece of one."""

    content: str | list[Part] | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[CallPart], NullIsEmpty] = []
    # What reasoning is called differs: DeepSeek, llama.cpp and older vLLM; Ollama, vLLM and OpenRouter; OpenRouter.
    reasoning_content: Annotated[str | None, Lenient] = None
    reasoning: Annotated[str | None, Lenient] = None
    reasoning_details: Annotated[list[dict[str, Any]] | None, Kept, Lenient] = None

    @property
    def text(self) -> str:
        """Return what it says to the user."""
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content if part.type == "text")
        return self.content or ""


class Choice(BaseModel):
    """An answer, or the next piece of it."""

    delta: Said | None = None
    message: Said | None = None
    finish_reason: Annotated[str | None, Lenient] = None


class Counted(BaseModel):
    """What a completion used."""

    prompt_tokens: Count
    completion_tokens: Count


class Chunk(BaseModel):
    """A completion, or the next piece of one."""

    id: Annotated[Ident | None, Lenient] = None
    model: Annotated[str | None, Lenient] = None
    choices: Annotated[list[Choice], NullIsEmpty] = []
    usage: Annotated[Counted | None, Lenient] = None
    error: Any = None
    object: Annotated[str | None, Lenient] = None
