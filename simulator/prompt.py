"""What the model is given, seen as request, document, tool outputs and earlier conversation."""

import dataclasses
import json
import re
from typing import Any

from simulator.directives import Script, script_of
from simulator.reading import is_request, item_text, key_lines
from simulator.wire import HOSTED, JsonObject

_DOCUMENT_BEGINS = re.compile(
    r"^\s*(?:<\w+[^>]*>|-{3,}\s*$|={3,}|```|#{1,6} |(?:document|text|content|file|input)\b[^\n:]{0,80}:|\[document\b)",
    re.IGNORECASE | re.MULTILINE,
)
_DOCUMENT_ENDS = re.compile(r"^</\w+>\s*$", re.MULTILINE)
_HEADER = re.compile(r"\A(?:<\w+[^>]*>|[-=`]{3,}\w*|\[?\w+\b[^\n:]{0,80}:[ \t]*\S*\]?)[ \t]*\n")
LONG = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """A function call since the newest user message, and its output."""

    name: str
    arguments: str
    output: str


@dataclasses.dataclass(frozen=True, slots=True)
class Prompt:
    """One asking of the model."""

    request: str
    document: str
    earlier: str
    instructions: str
    tools: list[JsonObject]
    hosted: set[str]
    must_call: bool
    parallel: bool
    format: JsonObject
    made: list[Made]
    script: Script | None

    @classmethod
    def of(cls, body: JsonObject, items: list[JsonObject], attempt: int) -> "Prompt":
        """Read a request body and the items of its conversation, its own input included."""
        first, last = _newest(items)
        script, _ = script_of(item_text(items[last]), attempt) if items else (None, "")
        given = "\n\n".join(script_of(item_text(item), attempt)[1] for item in items[first : last + 1])
        request, document = split_request(given)
        made = _made(items[last + 1 :])
        outputs = [text for call in made if (text := long_text(call.output))]
        tools, must_call = _offered(body, made)
        return cls(
            request=request,
            document="\n\n".join([document, *outputs]).strip(),
            earlier="\n\n".join(item_text(item) for item in items[:first] if item["type"] == "message"),
            instructions=body.get("instructions") or "",
            tools=tools,
            hosted={tool["type"] for tool in body.get("tools") or []} & set(HOSTED),
            must_call=must_call,
            parallel=body.get("parallel_tool_calls") is not False,
            format=(body.get("text") or {}).get("format") or {"type": "text"},
            made=made,
            script=script,
        )


def long_text(output: str) -> str | None:
    """Return what a tool's output has to read: itself where it is plain and long, or the long text of its JSON."""
    try:
        parsed = json.loads(output)
    except ValueError:
        parsed = output
    texts = [one for one in parsed.values() if isinstance(one, str)] if isinstance(parsed, dict) else [parsed]
    longest = max((one for one in texts if isinstance(one, str)), key=len, default="")
    return longest if len(longest) > LONG else None


def _newest(items: list[JsonObject]) -> tuple[int, int]:
    """Return where the newest user messages, one directly after the other, begin and end."""
    own = [item["type"] == "message" and item["role"] == "user" for item in items]
    last = max((at for at, mine in enumerate(own) if mine), default=len(items) - 1)
    first = last
    while first > 0 and own[first - 1]:
        first -= 1
    return first, last


def _made(items: list[JsonObject]) -> list[Made]:
    outputs = {item["call_id"]: item_text(item) for item in items if item["type"] == "function_call_output"}
    calls = [item for item in items if item["type"] == "function_call"]
    return [Made(call["name"], call["arguments"], outputs.get(call["call_id"], "")) for call in calls]


def _offered(body: JsonObject, made: list[Made]) -> tuple[list[JsonObject], bool]:
    """Return the functions that may be called, and whether one must be; once one was called, none must."""
    tools: list[JsonObject] = [tool for tool in body.get("tools") or [] if tool["type"] == "function"]
    choice: Any = body.get("tool_choice") or "auto"
    if choice == "none":
        return [], False
    if isinstance(choice, str):
        return tools, choice == "required" and not made
    names = [tool.get("name") for tool in choice.get("tools", [choice])]
    must = choice.get("mode", "required") == "required" and not made
    return [tool for tool in tools if tool["name"] in names], must


def split_request(text: str) -> tuple[str, str]:
    """Tell what is asked from the document it is asked about; what asks for nothing is all document."""
    begins = _DOCUMENT_BEGINS.search(text)
    if begins:
        before, rest = text[: begins.start()].strip(), text[begins.start() :].lstrip()
        ends = _DOCUMENT_ENDS.search(rest)
        after = rest[ends.end() :].strip() if ends else ""
        if before or after:
            return f"{before}\n{after}".strip(), _HEADER.sub(
                "", rest[: ends.start()] if ends else rest, count=1
            ).strip()
    paragraphs = re.split(r"\n\s*\n", text.strip())
    rest = "\n\n".join(paragraphs[1:])
    if len(rest) <= LONG and len(key_lines(text)) <= 1:
        return text.strip(), ""
    if paragraphs[-1].endswith("?"):
        return paragraphs[-1], "\n\n".join(paragraphs[:-1])
    return (paragraphs[0], rest) if is_request(paragraphs[0]) else ("", text.strip())
