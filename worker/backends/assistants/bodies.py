"""What is read of the answers of Assistants v2, checked; whatever else they hold is left alone."""

from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag

from worker.backends.transport.bodies import Count, Details, Fault, Ident, Kept, Lenient, Moment, NullIsEmpty
from worker.response import CODE, SEARCH

Entry = TypeVar("Entry", bound=BaseModel)
# Two of them with a slash between are the id of a step, in a column of 200 characters: as Ident, without a slash.
_Half = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][\x21-\x2e\x30-\x7e]{0,98}$")]
_Metadata = Annotated[dict[str, Any] | None, Lenient]


class Made(BaseModel):
    """Anything that the server made and that is known by its id."""

    id: _Half
    metadata: _Metadata = None

    def says(self, key: str) -> Any:
        """Return what its metadata say under a key."""
        return (self.metadata or {}).get(key)


class Function(BaseModel):
    """What the model asks for; `arguments` is JSON text, not yet checked."""

    name: str
    arguments: str


class Call(BaseModel):
    """One call of a function."""

    id: Ident
    function: Function


class HostedCode(BaseModel):
    """Code that the server ran, and what came of it."""

    input: Annotated[str | None, Lenient] = None
    outputs: Annotated[list[Any] | None, Kept, Lenient] = None


class HostedSearch(BaseModel):
    """How the server searched in files, and what it found."""

    ranking_options: Annotated[dict[str, Any] | None, Kept, Lenient] = None
    results: Annotated[list[Any] | None, Kept, Lenient] = None


class CodeCall(BaseModel):
    """One call of the server's own code interpreter."""

    id: Ident
    code_interpreter: HostedCode


class SearchCall(BaseModel):
    """One call of the server's own file search."""

    id: Ident
    file_search: HostedSearch


class Typed(BaseModel):
    """Anything of which no more is read than what it is; the rest is kept as it came."""

    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, Annotated[Any, Kept]]
    type: Annotated[str | None, Lenient] = None


def _called(call: Any) -> str:
    kind = call.get("type", "function") if isinstance(call, dict) else None
    return kind if kind in ("function", CODE, SEARCH) else "other"


_AnyCall = Annotated[
    Annotated[Call, Tag("function")]
    | Annotated[CodeCall, Tag(CODE)]
    | Annotated[SearchCall, Tag(SEARCH)]
    | Annotated[Typed, Tag("other")],
    Discriminator(_called),
]


class Calls(BaseModel):
    """All calls that a run waits for at once."""

    tool_calls: Annotated[list[_AnyCall], Field(min_length=1)]


class Required(BaseModel):
    """What a run waits for; `submit_tool_outputs` is the one kind there is."""

    submit_tool_outputs: Calls


class Tokens(BaseModel):
    """What a whole run used, told when it has ended."""

    prompt_tokens: Count
    completion_tokens: Count


class Tool(BaseModel):
    """A tool that a run may call; its schema is passed over at each look."""

    type: Annotated[str | None, Lenient] = None


class RunBody(Made):
    """A run as far as we need it."""

    status: str
    required_action: Annotated[Required | None, Lenient] = None
    last_error: Annotated[Fault | None, Lenient] = None
    incomplete_details: Annotated[Details | None, Lenient] = None
    usage: Annotated[Tokens | None, Lenient] = None
    model: Annotated[str | None, Lenient] = None
    completed_at: Moment = None
    tools: Annotated[list[Tool] | None, Lenient] = None

    @property
    def calls(self) -> list[Call]:
        """Return what it waits for, if that can be read: functions, since the server answers its own tools itself."""
        asked = self.required_action.submit_tool_outputs.tool_calls if self.required_action else []
        return [call for call in asked if isinstance(call, Call)]

    @property
    def hosted(self) -> set[str]:
        """Return the server's own tools that it could call."""
        return {CODE, SEARCH} & {str(tool.type) for tool in self.tools or ()}


class Did(BaseModel):
    """What a step of a run did: the tools that it called, none where it wrote a message."""

    tool_calls: Annotated[list[Annotated[_AnyCall | None, Lenient]], NullIsEmpty] = []


class StepBody(BaseModel):
    """A step of a run."""

    status: Annotated[str | None, Lenient] = None
    step_details: Annotated[Did | None, Lenient] = None

    @property
    def calls(self) -> list[Any]:
        """Return what it called, as far as that can be read."""
        return self.step_details.tool_calls if self.step_details else []


class Text(BaseModel):
    """A text of a message."""

    value: str
    annotations: Annotated[list[dict[str, Any]] | None, Kept, Lenient] = None


class TextPart(BaseModel):
    """A part of a message that is text."""

    text: Text


class RefusalPart(BaseModel):
    """What the model said where it refused."""

    refusal: str


def _kind(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    return kind if kind in ("text", "refusal") else "other"


_AnyPart = Annotated[
    Annotated[TextPart, Tag("text")] | Annotated[RefusalPart, Tag("refusal")] | Annotated[Typed, Tag("other")],
    Discriminator(_kind),
]


class MessageBody(Made):
    """A message of a thread."""

    role: str
    content: Annotated[list[_AnyPart], NullIsEmpty] = []
    run_id: Annotated[str | None, Lenient] = None
    """The run that made it; None of what was put there."""


class Page(BaseModel, Generic[Entry]):
    """A page of a list."""

    data: Annotated[list[Entry], NullIsEmpty] = []
    has_more: Annotated[bool | None, Lenient] = None
    last_id: Annotated[Ident | None, Lenient] = None
