"""What is sent of a step in Responses: what the assistant says for the model, and the step's own input."""

from collections.abc import Mapping
from typing import Any

from tools.registry import Tool
from worker.backends.base import Step
from worker.response import CODE, SEARCH

# Keys of an assistant's configuration that Responses takes as they are.
_AS_IS = (
    "model",
    "instructions",
    "temperature",
    "top_p",
    "max_output_tokens",
    "parallel_tool_calls",
    "tool_choice",
    "service_tier",
)
_TOLD = {CODE: "code_interpreter_call.outputs", SEARCH: "file_search_call.results"}  # of `include`


def settings(step: Step) -> dict[str, Any]:
    """Return what the assistant says for the model, and whose step it is."""
    config = step.config
    body: dict[str, Any] = {key: config[key] for key in _AS_IS if key in config}
    if "reasoning_effort" in config:
        body["reasoning"] = {"effort": config["reasoning_effort"]}
    if "response_format" in config:
        body["text"] = {"format": config["response_format"]}
    if step.tools:
        body["tools"] = [_function(tool) for tool in step.tools]
    return {**body, "metadata": step.identity}


def with_hosted(body: Mapping[str, Any], config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a request with the tools of the provider's own, whose outputs it tells only where they are asked for."""
    hosted: Mapping[str, Any] = config.get("hosted_tools", {})
    if not hosted:
        return body
    tools = [_HOSTED[name](said) for name, said in hosted.items()]
    return {**body, "tools": [*body.get("tools", ()), *tools], "include": [_TOLD[name] for name in hosted]}


def background_options(step: Step) -> Mapping[str, Any]:
    """Return how soon the step is to be done, where its assistant says so.

    The run's id ties its steps together: one that goes on from the tools of another then comes first in the provider's
    queue, and a run keeps window and model for all of them. It says nothing else there, nor of anybody.
    """
    if "completion_window" not in step.config:
        return {}
    options = {"completion_window": step.config["completion_window"], "continuation_id": step.run_id}
    return {"background_options": options}


def asked_items(step: Step) -> list[Mapping[str, Any]]:
    """Return the step's own input: outputs of tools, then the user's message."""
    answers = [{"type": "function_call_output", "call_id": a.call_id, "output": a.output} for a in step.answers]
    return [*answers, *message_items(step.input)]


def message_items(parts: Any, role: str = "user") -> list[Mapping[str, Any]]:
    """Return a message of a thread as an item; none where it is empty."""
    if not parts:
        return []
    text = "output_text" if role == "assistant" else "input_text"
    content = [{**part, "type": text} if part.get("type") == "text" else part for part in parts]
    return [{"type": "message", "role": role, "content": content}]


def _code_interpreter(said: Mapping[str, Any]) -> Mapping[str, Any]:
    files = {"file_ids": said["file_ids"]} if said.get("file_ids") else {}
    return {"type": CODE, "container": {"type": "auto", **files}}


def _file_search(said: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": SEARCH, **said}


_HOSTED = {CODE: _code_interpreter, SEARCH: _file_search}


def _function(tool: Tool) -> Mapping[str, Any]:
    # Not strict: strict mode refuses schemas with defaults, and the arguments are validated here in any case.
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": False,
    }
