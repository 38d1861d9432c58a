"""A chat completion put together from its chunks, or taken from one piece."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from worker import tokens
from worker.assistants.prices import Prices
from worker.backends import forms
from worker.backends.base import Done, Ended, Failed, NeedsTools, Step
from worker.backends.foreground.call_parts import CallParts
from worker.backends.foreground.chunks import Choice, Chunk, Counted, Said
from worker.backends.transport.bodies import read
from worker.backends.transport.faults import reported
from worker.response import Item, Usage

_DONE = b"[DONE]"
_CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}
_REASONING = ("reasoning_content", "reasoning")
_PIECES = ("text", "summary", "data")  # of reasoning_details: what a stream brings in pieces


class Completion:
    """What a step answers, as far as it has come."""

    wanted = frozenset({b"", b"message", b"error"})  # a chunk has no name; some servers name what went wrong

    def __init__(self, step: Step, asked: Sequence[Item], sent: int, prices: Prices) -> None:
        """Begin with nothing; `sent` are the bytes of the request, for a server that does not count its tokens."""
        self.id: str | None = None
        self.begun = False
        self._step = step
        self._asked = asked
        self._sent = sent
        self._prices = prices
        self._model = ""
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._reasoning: dict[str, str] = {}
        self._details: list[dict[str, Any]] = []
        self._calls = CallParts()
        self._finish: str | None = None
        self._counted: Counted | None = None

    def take(self, name: bytes, data: bytes) -> Ended | None:
        """Read the data of one event."""
        if data.strip() == _DONE:
            return self._ended()
        if name == b"error":
            return self._told_to_fail(data)
        try:
            return self._add(read(data, Chunk), data)
        except ValueError as error:
            return self._failed("bad_answer", str(error))

    def whole(self, body: bytes) -> Ended:
        """Read a completion in one piece; ValueError says what is wrong with it."""
        failed = self._add(read(body, Chunk), body)
        if failed is None and not self._finish and not self._said_anything():
            raise ValueError("the provider's answer is no completion; does OPENAI_BASE_URL lead to its API?")
        return failed or self._ended()

    def cut(self, code: str, message: str) -> Ended:
        """Take an answer as ended that has said why it ended, whatever should have come behind that."""
        return self._ended() if self._finish else self._failed(code, message)

    def _add(self, chunk: Chunk, data: bytes) -> Failed | None:
        self.begun = True
        self.id, self._model = self.id or chunk.id, chunk.model or self._model
        self._counted = chunk.usage or self._counted
        if chunk.error is not None or chunk.object == "error":
            return self._told_to_fail(data)
        for choice in chunk.choices[:1]:
            self._choose(choice)
        return None

    def _choose(self, choice: Choice) -> None:
        said = choice.delta or choice.message
        if said is not None:
            self._say(said)
        self._finish = choice.finish_reason or self._finish

    def _say(self, said: Said) -> None:
        if said.text:
            self._text.append(said.text)
            if self._step.on_text is not None:
                self._step.on_text(said.text)
        self._refusal.append(said.refusal or "")
        for name in _REASONING:
            if piece := getattr(said, name):
                self._reasoning[name] = self._reasoning.get(name, "") + piece
        for detail in said.reasoning_details or ():
            _add_detail(self._details, detail)
        for part in said.tool_calls:
            self._calls.add(part)

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _ended(self) -> Ended:
        text, refusal = "".join(self._text), "".join(self._refusal)
        stopped_by = _CUT.get(self._finish or "")
        if self._finish == "error" or not (self._finish or self._said_anything()):
            return self._failed("server_error", "the provider ended its answer without a reason")
        if stopped_by is None and self._calls.size():
            return self._needs_tools(text, refusal)
        # Calls of an answer that was cut are nobody's, and so is reasoning that led to nothing.
        unsaid = {"role": "assistant", "content": forms.unsaid(stopped_by)}
        said = self._message(text, refusal) if text or refusal else unsaid
        return Done(text or refusal, self._usage(), "", stopped_by, items=(*self._asked, said))

    def _needs_tools(self, text: str, refusal: str) -> Ended:
        try:
            asked, calls = self._calls.asked(_known_calls(self._step.history))
        except ValueError as error:
            return self._failed("bad_answer", str(error))
        message = {**self._message(text, refusal), "content": text or None, "tool_calls": calls}
        return NeedsTools(tuple(asked), self._usage(), "", items=(*self._asked, message))

    def _message(self, text: str, refusal: str) -> dict[str, Any]:
        """Return what the model said as it goes back to the server: reasoning in the server's own words for it."""
        details = {"reasoning_details": self._details} if self._details else {}
        said = {"refusal": refusal} if refusal else {}
        return {"role": "assistant", "content": text, **said, **self._reasoning, **details}

    def _said_anything(self) -> bool:
        return bool(self._written())

    def _written(self) -> int:
        texts = [*self._text, *self._refusal, *self._reasoning.values()]
        return sum(len(text.encode()) for text in texts) + self._calls.size()

    def _usage(self) -> Usage:
        """Return what the server counted, else a guess by length: of the whole request, and of what was written."""
        counted = self._counted
        given, taken = tokens.guessed(self._sent), tokens.guessed(self._written())
        used = (given, taken) if counted is None else (counted.prompt_tokens, counted.completion_tokens)
        return Usage(*used, self._prices.cost(self._model or self._step.config["model"], *used))

    def _told_to_fail(self, data: bytes) -> Failed:
        error = reported(data)
        return replace(self._failed(error.code, error.message), transient=error.transient)

    def _failed(self, code: str, message: str) -> Failed:
        spent = self._usage() if self._counted or self._said_anything() else Usage()
        return Failed(code, message, spent, transient=True)


def _known_calls(history: Sequence[Item]) -> Collection[str]:
    return {call["id"] for item in history for call in item.get("tool_calls") or ()}


def _add_detail(details: list[dict[str, Any]], detail: dict[str, Any]) -> None:
    """Add an entry, or the next piece of one: OpenRouter streams them under an index, as it does calls."""
    index = detail.get("index")
    same = next((one for one in details if index is not None and one.get("index") == index), None)
    if same is None:
        details.append(dict(detail))
        return
    for name, value in detail.items():
        goes_on = name in _PIECES and isinstance(value, str) and isinstance(same.get(name), str)
        same[name] = same[name] + value if goes_on else value
