"""Calls of the provider's own tools, as items of a response and as steps of a run: what a directive says they did."""

from collections.abc import Collection, Iterable

from simulator.wire import JsonObject, new_id

_RANKING = {"ranker": "default_2024_08_21", "score_threshold": 0.0}


def hosted_item(name: str, told: JsonObject, include: Collection[str]) -> JsonObject:
    """Return a call as an item; its outputs are told to those who ask for them, in `include` of the request."""
    state = {"type": f"{name}_call", "status": told.get("status", "completed")}
    if name == "code_interpreter":
        outputs = [{"type": "logs", "logs": told.get("logs", "")}]
        told_there = outputs if "code_interpreter_call.outputs" in include else None
        ids = {"id": new_id("ci"), "container_id": new_id("cntr")}
        return {**ids, **state, "code": told.get("code", ""), "outputs": told_there}
    results = [{"attributes": {}, "score": 0.5, "text": "", **one} for one in told.get("results", ())]
    told_there = results if "file_search_call.results" in include else None
    return {"id": new_id("fs"), **state, "queries": told.get("queries", []), "results": told_there}


def is_hosted(item: JsonObject) -> bool:
    """Tell whether an item is such a call."""
    return item["type"] in ("code_interpreter_call", "file_search_call")


def cited(hosted: Iterable[tuple[str, JsonObject]]) -> list[JsonObject]:
    """Return the citations of what a response's searches have found, as annotations of its text."""
    found = [one for name, told in hosted if name == "file_search" for one in told.get("results", ())]
    return [
        {"type": "file_citation", "index": 0, **{key: one[key] for key in ("file_id", "filename")}} for one in found
    ]


def step_call(item: JsonObject, *, content: bool) -> JsonObject:
    """Return an item as a call of a run's step; the text of what was found only where its `content` is asked for."""
    name = item["type"].removesuffix("_call")
    if name == "code_interpreter":
        return {"id": item["id"], "type": name, name: {"input": item["code"], "outputs": item["outputs"] or []}}
    results = [_found(one, content=content) for one in item["results"] or ()]
    return {"id": item["id"], "type": name, name: {"ranking_options": _RANKING, "results": results}}


def _found(result: JsonObject, *, content: bool) -> JsonObject:
    told = {"file_id": result["file_id"], "file_name": result["filename"], "score": result["score"]}
    return {**told, "content": [{"type": "text", "text": result["text"]}]} if content else told


def citations(items: Iterable[JsonObject]) -> list[JsonObject]:
    """Return the citations of what the searches among some items have found, as a thread's message has them."""
    found = [one for item in items if item["type"] == "file_search_call" for one in item["results"] or ()]
    mark = {"type": "file_citation", "text": "", "start_index": 0, "end_index": 0}
    return [{**mark, "file_citation": {"file_id": one["file_id"]}} for one in found]
