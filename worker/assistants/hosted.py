"""Tools of the provider's own, which it runs by itself inside a step: what an assistant may say of them."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from worker.backends.places import Capabilities
from worker.response import CODE, SEARCH

_Id = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,200}$")]


def _settings(given: Any) -> Any:
    """Read `code_interpreter:` with nothing behind it, where YAML has null, as given without settings."""
    if given is not None and not isinstance(given, Mapping):
        raise ValueError("its settings by name, or nothing")
    return {} if given is None else given


def _by_name(given: Any) -> Any:
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"each by its name with its settings, such as `{CODE}: {{}}`")
    return given


def _some(ids: list[str]) -> list[str]:
    if not ids:
        raise ValueError("a vector store to search in; there is none")
    return ids


class CodeInterpreter(BaseModel):
    """Python that the provider runs in a container of its own."""

    model_config = ConfigDict(strict=True, extra="forbid")

    file_ids: list[_Id] = []
    """Files that were uploaded there, for the code to read."""


class FileSearch(BaseModel):
    """A search in vector stores that are at the provider."""

    model_config = ConfigDict(strict=True, extra="forbid")

    vector_store_ids: Annotated[list[_Id], AfterValidator(_some)]
    max_num_results: Annotated[int, Field(ge=1, le=50)] | None = None


class Hosted(BaseModel):
    """The tools of the provider's own that an assistant is given."""

    model_config = ConfigDict(strict=True, extra="forbid")

    code_interpreter: Annotated[CodeInterpreter | None, BeforeValidator(_settings)] = None
    file_search: Annotated[FileSearch | None, BeforeValidator(_settings)] = None


HostedTools = Annotated[Hosted, BeforeValidator(_by_name)]


def excess(hosted: Mapping[str, Any], can: Capabilities) -> tuple[str, str, int] | None:
    """Return tool, key and limit of the first list of ids that is longer than a protocol takes it."""
    for tool, key, most in ((CODE, "file_ids", can.most_files), (SEARCH, "vector_store_ids", can.most_stores)):
        if most is not None and len(hosted.get(tool, {}).get(key, ())) > most:
            return tool, key, most
    return None
