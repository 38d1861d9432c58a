"""Chat completions, which every compatible server speaks: vLLM, Ollama, llama.cpp, LM Studio, OpenRouter, OpenAI.

The longest answer is `max_completion_tokens` at OpenAI and Azure, whose reasoning models refuse `max_tokens`, and
`max_tokens` everywhere else: Ollama reads no other (openai/openai.go), vLLM, llama.cpp and OpenRouter read both.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from worker.assistants.prices import Prices
from worker.backends import forms
from worker.backends.base import Step
from worker.backends.foreground.completion import Completion
from worker.backends.places import PROTOCOLS
from worker.response import Item

_AS_IS = ("model", "temperature", "top_p", "reasoning_effort", "service_tier")
_WITH_TOOLS = ("tool_choice", "parallel_tool_calls")  # refused by OpenAI where there are none
_OPENAIS = ("api.openai.com", ".api.openai.com", ".openai.azure.com")


class Chat:
    """The dialect of chat completions as one server takes it."""

    can = PROTOCOLS["chat"]
    path = "/chat/completions"

    def __init__(self, host: str, prices: Prices) -> None:
        self._longest = "max_completion_tokens" if _is_openais(host) else "max_tokens"
        self._prices = prices

    def said(self, message: Mapping[str, Any]) -> Sequence[Item]:
        """Return the message in the words of the protocol, text as a string: Ollama takes parts as so many messages."""
        parts = message["content"]
        if all(part.get("type") == "text" for part in parts):
            return [{"role": message["role"], "content": "\n\n".join(part["text"] for part in parts)}] if parts else []
        return [{"role": message["role"], "content": list(parts)}]

    def asked(self, step: Step) -> list[Item]:
        """Return a message for each output, and the user's."""
        outputs = [{"role": "tool", "tool_call_id": one.call_id, "content": one.output} for one in step.answers]
        return [*outputs, *self.said({"role": "user", "content": step.input})]

    def body(self, step: Step, items: Sequence[Item]) -> dict[str, Any]:
        """Return the request: as a stream, with its usage in the last chunk."""
        config = step.config
        body = {key: config[key] for key in _AS_IS if key in config}
        if "max_output_tokens" in config:
            body[self._longest] = config["max_output_tokens"]
        if "response_format" in config:
            body["response_format"] = forms.json_schema(config["response_format"])
        if step.tools:
            body["tools"] = [forms.function(tool) for tool in step.tools]
            body |= {key: config[key] for key in _WITH_TOOLS if key in config}
        told = config.get("instructions")
        system = [{"role": "system", "content": told}] if told else []
        return {**body, "messages": [*system, *items], "stream": True, "stream_options": {"include_usage": True}}

    def answer(self, step: Step, asked: Sequence[Item], sent: int) -> Completion:
        """Return what puts the completion together."""
        return Completion(step, asked, sent, self._prices)


def _is_openais(host: str) -> bool:
    return host == _OPENAIS[0] or host.endswith(_OPENAIS[1:])
