"""The items of one conversation, in order."""

import dataclasses
from collections.abc import Callable
from typing import Any

from simulator.errors import ApiError, item_not_found
from simulator.responses import Response
from simulator.wire import JsonObject, item_list


@dataclasses.dataclass(slots=True)
class Conversation:
    """A conversation: its items by id, in the order of adding, and the responses at work on it."""

    id: str
    created_at: int
    metadata: dict[str, str]
    items: dict[str, JsonObject] = dataclasses.field(default_factory=dict)
    active: list[Response] = dataclasses.field(default_factory=list)

    def add(self, items: list[JsonObject]) -> None:
        """Append items; one that came by reference stays where it is."""
        for item in items:
            self.items.setdefault(item["id"], item)

    def settle(self, now: float, on_failure: str) -> None:
        """Take in what every response that has ended leaves here, in the order in which they ended."""
        for response in sorted(self.active, key=lambda one: one.ends):
            if response.is_active(now):
                continue
            self.active.remove(response)
            self.add(response.left(now, on_failure))

    def body(self) -> JsonObject:
        """Return the conversation as the wire has it."""
        return {"id": self.id, "object": "conversation", "created_at": self.created_at, "metadata": self.metadata}


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """What part of a list is asked for."""

    limit: int = 20
    order: str = "desc"
    after: str | None = None

    @classmethod
    def of(cls, query: dict[str, Any]) -> "Page":
        """Read the query parameters; one that OpenAI would refuse raises ApiError."""
        limit, order = str(query.get("limit", 20)), query.get("order", "desc")
        if not limit.isdecimal() or not 1 <= int(limit) <= 100:
            code = "integer_above_max_value" if limit.isdecimal() and int(limit) else "integer_below_min_value"
            raise ApiError(
                400, f"Invalid 'limit': expected an integer from 1 to 100, got {limit}.", code=code, param="limit"
            )
        if order not in ("asc", "desc"):
            message = f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'."
            raise ApiError(400, message, code="invalid_value", param="order")
        return cls(int(limit), order, query.get("after"))

    def cut(self, items: list[JsonObject], missing: Callable[[str], ApiError] = item_not_found) -> JsonObject:
        """Return this page of the items, which are given oldest first; ApiError where `after` is none of them."""
        ordered = items if self.order == "asc" else items[::-1]
        start = 0
        if self.after is not None:
            ids = [item["id"] for item in ordered]
            if self.after not in ids:
                raise missing(self.after)
            start = ids.index(self.after) + 1
        shown = ordered[start : start + self.limit]
        return item_list(shown, start + self.limit < len(ordered))
