"""What protocols write alike: a function for the model, the schema of its answer, the word for one without words."""

from collections.abc import Mapping
from typing import Any

from tools.registry import Tool


def function(tool: Tool) -> dict[str, Any]:
    """Return a tool as one of `tools`."""
    # Not strict: strict mode refuses schemas with defaults, and the arguments are validated here in any case.
    told = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": told}


def json_schema(response_format: Mapping[str, Any]) -> dict[str, Any]:
    """Return an assistant's `response_format`, which has the form of Responses, in theirs."""
    schema = {key: value for key, value in response_format.items() if key != "type"}
    return {"type": "json_schema", "json_schema": schema}


def unsaid(stopped_by: str | None) -> str:
    """Return what stands in a conversation for an answer without words.

    Mistral refuses an empty message (github.com/OpenHands/OpenHands/issues/8685), and templates of models refuse two
    questions in a row (github.com/vllm-project/vllm/issues/6862).
    """
    return f"(no answer: {stopped_by})" if stopped_by else "(no answer)"
