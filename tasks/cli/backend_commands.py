"""Where models are served: the protocols, and the servers that assistants name, asked what they speak."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import typer

from tasks.cli.errands import send
from tasks.cli.output import OUT, JsonOption, clean, emit, note, say
from tasks.cli.run_tables import table_of
from worker import urls
from worker.backends.places import PROTOCOLS, Capabilities, Place
from worker.care.errands import Errand, Outcome, Target
from worker.producer import producer
from worker.settings import Settings
from worker.store import assistants

app = typer.Typer()

_CAN = {
    "resumes": "goes on without us",
    "keeps": "keeps conversations",
    "holds": "waits for outputs of tools",
}
_OPENAI = "OpenAI"
_SIMULATED = "the simulator of `runwright up` takes any key, at the OPENAI_BASE_URL that `up` shows as provider"


@dataclass(frozen=True, slots=True)
class _Row:
    """One place, who uses it, and what was seen there."""

    place: Place
    assistants: list[str]
    models: set[str]
    outcome: Outcome

    def as_json(self, settings: Settings) -> dict[str, Any]:
        """Return what --json prints of it."""
        place, found = self.place, self.outcome.found or {}
        return {
            "protocol": place.protocol,
            "address": _address(place, settings),
            "key": place.key,
            "key_set": _key_set(place, settings),
            "assistants": self.assistants,
            "reachable": found.get("reachable"),
            "error": self.outcome.error or found.get("error"),
            "models": found.get("models"),
            **{name: found.get(name) for name in ("conversations", "responses", "assistants_api")},
            "hints": list(_hints(self, found, settings)),
        }


@app.command()
def backends(as_json: JsonOption = False) -> None:
    """Show the protocols, and each server that assistants use: its key, and what it is seen to speak.

    Only what the newest versions of assistants name is asked, by requests that make nothing there.
    """
    settings, rows = producer().settings, _rows()
    told = [row.as_json(settings) for row in rows]
    if as_json:
        emit({"protocols": [_protocol(name, can) for name, can in PROTOCOLS.items()], "places": told})
        return
    for name, can in PROTOCOLS.items():
        say(f"{name}: {can.told}")
    table = table_of("protocol", "address", "key", "assistants", "seen", right=("assistants",))
    for one in told:
        words = "; ".join(_seen(one))
        table.add_row(
            one["protocol"], clean(one["address"]), clean(_key(one)), str(len(one["assistants"])), clean(words)
        )
    OUT.print(table)
    for one in told:
        for hint in one["hints"]:
            note(f"{one['protocol']} at {one['address']}: {hint}")


def _rows() -> list[_Row]:
    door = producer()
    with door.database.read() as connection:
        newest = assistants.all_newest(connection)
    default = door.settings.backend
    names: dict[Place, list[str]] = {Place.of({}, default): []}
    models: dict[Place, set[str]] = {}
    for version in newest:
        place = Place.of(version.config, default)
        names.setdefault(place, []).append(version.name)
        models.setdefault(place, set()).add(version.config["model"])
    asked = [Target("", str(place)) for place in names if _key_set(place, door.settings) is not False]
    seen = {one.target.place: one for one in send(Errand.SURVEY, asked)}
    return [
        _Row(place, used, models.get(place, set()), seen.get(str(place)) or Outcome(Target("", str(place))))
        for place, used in names.items()
    ]


def _key_set(place: Place, settings: Settings) -> bool | None:
    """Tell whether this process has the key of a place; None where it needs none."""
    return None if place.key is None else settings.key(place.key) is not None


def _protocol(name: str, can: Capabilities) -> dict[str, Any]:
    facts = {fact: getattr(can, fact) for fact in _CAN}
    return {"name": name, "told": can.told, **facts, "settings": sorted(can.settings), "truncation": can.truncations}


def _address(place: Place, settings: Settings) -> str:
    given = place.base_url or settings.openai_base_url
    return urls.without_secret(given) if given else _OPENAI


def _key(told: Mapping[str, Any]) -> str:
    if told["key"] is None:
        return "none"
    return f"{told['key']}{'' if told['key_set'] else ': not set here'}"


def _seen(told: Mapping[str, Any]) -> Iterator[str]:
    if told["reachable"]:
        yield "reachable" if told["models"] is None else f"{len(told['models'])} models"
        for name, word in (("conversations", "conversations"), ("responses", "stored responses")):
            if told[name] is not None:
                yield f"{'keeps' if told[name] else 'no'} {word}"
        if told["assistants_api"]:
            yield "Assistants API"
    elif told["reachable"] is False:
        yield "not reachable"
    if told["error"]:
        yield told["error"]
    if told["key_set"] is False:
        yield "not asked"


def _hints(row: _Row, found: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    """Say why it was not asked, and where a protocol or a model is not what the server was seen to have."""
    if _key_set(row.place, settings) is False:
        simulated = f"; {_SIMULATED}" if row.place.base_url is None and not settings.openai_base_url else ""
        yield f"not asked: set {row.place.key} here, as the workers have it{simulated}"
    if row.place.protocol == "responses" and found.get("conversations") is False:
        yield "this server keeps no conversations; say `responses-stateless` or `chat`"
    if row.place.protocol == "assistants" and found.get("assistants_api") is False:
        yield "this server has no Assistants API; say `responses` or `chat`"
    listed = found.get("models")
    if listed and (missing := sorted(row.models - set(listed))):
        yield f"it does not list the models {', '.join(missing)}"
