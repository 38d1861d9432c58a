"""What is read of a response, its events and its conversation, checked; whatever else they hold is left alone."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Discriminator, Tag

from worker.backends.transport.bodies import Count, Details, Fault, Ident, Kept, Lenient, Moment, Named, NullIsEmpty


class Item(BaseModel):
    """One item of a response's output, of a kind that nothing more is read of."""

    id: Annotated[Ident | None, Lenient] = None


class Part(BaseModel):
    """One part of a message."""

    type: str
    text: str | None = None
    refusal: str | None = None
    annotations: Annotated[list[dict[str, Any]] | None, Kept, Lenient] = None


class Message(Item):
    """What the model said."""

    content: Annotated[list[Part], NullIsEmpty] = []


class Call(Item):
    """A function the model asks for; `arguments` is JSON text, not yet checked."""

    call_id: Ident
    name: str
    arguments: str


class CodeCall(Item):
    """Code that the provider has run in its own interpreter."""

    status: Annotated[str | None, Lenient] = None
    code: Annotated[str | None, Lenient] = None
    outputs: Annotated[list[Any] | None, Kept, Lenient] = None


class SearchCall(Item):
    """A search that the provider has made in files there."""

    status: Annotated[str | None, Lenient] = None
    queries: Annotated[list[Any] | None, Kept, Lenient] = None
    results: Annotated[list[Any] | None, Kept, Lenient] = None


class Tokens(BaseModel):
    """What a response used."""

    input_tokens: Count
    output_tokens: Count


_KINDS = ("message", "function_call", "code_interpreter_call", "file_search_call")


def _kind(item: Any) -> str:
    kind = item.get("type") if isinstance(item, dict) else None
    return kind if kind in _KINDS else "other"


_AnyItem = Annotated[
    Annotated[Message, Tag("message")]
    | Annotated[Call, Tag("function_call")]
    | Annotated[CodeCall, Tag("code_interpreter_call")]
    | Annotated[SearchCall, Tag("file_search_call")]
    | Annotated[Item, Tag("other")],
    Discriminator(_kind),
]


class ResponseBody(BaseModel):
    """A response as far as a run needs it."""

    id: Ident
    status: str
    output: Annotated[list[_AnyItem], NullIsEmpty] = []
    error: Annotated[Fault | None, Lenient] = None
    usage: Annotated[Tokens | None, Lenient] = None
    incomplete_details: Annotated[Details | None, Lenient] = None
    model: Annotated[str | None, Lenient] = None
    completed_at: Moment = None

    @property
    def calls(self) -> list[Call]:
        """Return the functions asked for, in order."""
        return [item for item in self.output if isinstance(item, Call)]

    @property
    def text(self) -> str:
        """Return all the text that the model said; where it only refused, its words for that."""
        said = "".join(part.text or "" for part in self.parts if part.type == "output_text")
        return said or "".join(part.refusal or "" for part in self.parts if part.type == "refusal")

    @property
    def parts(self) -> list[Part]:
        """Return what the model said, in the parts of its messages."""
        return [part for item in self.output if isinstance(item, Message) for part in item.content]


class BegunEvent(BaseModel):
    """An event of a stream that names its response."""

    response: Named


class TextEvent(BaseModel):
    """A piece of what the model says."""

    delta: str


class EndedEvent(BaseModel):
    """The last event of a stream: the whole response."""

    response: ResponseBody


class _ItemInThere(BaseModel):
    """What an item of a conversation is known by."""

    id: str | None = None
    type: str | None = None
    role: str | None = None
    call_id: str | None = None


def _known(item: dict[str, Any]) -> dict[str, Any]:
    _ItemInThere.model_validate(item)
    return item


class ItemsBody(BaseModel):
    """A page of a conversation's items, as they are."""

    data: Annotated[list[Annotated[dict[str, Any], AfterValidator(_known)]], Kept, NullIsEmpty] = []
    has_more: bool = False
    last_id: Annotated[Ident | None, Lenient] = None
