"""What happened to a run, in words, with the ids that the provider's support asks for."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from tasks.cli.output import clean, number
from tasks.cli.run_tables import STYLES, table_of
from worker.lifecycle import TERMINAL
from worker.store.reading import RunView

Row = Mapping[str, Any]
_LONG = 100.0  # seconds from which only whole ones are told, so that a provider's id fits beside them in 80 columns
_START_OVER = ", from the start if need be"
_ASKED = {"approval": "to approve", "in_doubt": "what these calls have come to"}


def timeline(view: RunView, events: Sequence[Row], attempts: Iterable[Row]) -> Table:
    """Show the events in order, with seconds since the submit; a claim says whose those that follow are."""
    words = _Words(view, {one["number"]: one for one in attempts})
    table = table_of("time (UTC)", "seconds", "what happened", right=("seconds",))
    for event in events:
        at, style = event["at"], STYLES.get(event["name"], "")
        day = "" if at.date() == view.created_at.date() else f"{at:%Y-%m-%d}\n"  # the first stands in the run's facts
        after = (at - view.created_at).total_seconds()
        seconds = f"+{number(after, 3 if after < _LONG else 0)}"
        table.add_row(f"{day}{at:%H:%M:%S.%f}"[:-3], seconds, clean(words.of(event), style))
    return table


def _decided(data: Row) -> str:
    reason = f": {data['reason']}" if data.get("reason") else ""
    return f"{data['tool']} ({data['call_id']}){reason}"


class _Words:
    """Knows the run's calls and attempts, which say more than an event alone."""

    def __init__(self, view: RunView, attempts: Mapping[int, Row]) -> None:
        self._view = view
        self._attempts = attempts
        self._calls = {call["call_id"]: call for call in view.tool_calls}
        self._said: dict[str, Callable[[Row, Row], str]] = {
            "submitted": lambda _event, _data: f"submitted to queue {view.queue}",
            "claimed": lambda event, _data: f"attempt {event['attempt']} is taken by worker {event['worker']}",
            "created": lambda _event, data: self._created(data),
            "requires_action": lambda _event, data: f"the model asks for {', '.join(data['tools'])}",
            "tool_finished": lambda _event, data: f"tool {self._call(data)}",
            "hosted_calls": lambda _event, data: f"the provider has run {', '.join(data['tools'])}",
            "tool_written_off": lambda _event, data: f"tool {self._call(data)}, not run",
            "unknown": lambda _event, _data: "unknown whether the provider has created the step",
            "adopted": lambda _event, data: f"step {data['step']} was found in the conversation and adopted",
            "refused": lambda _event, data: self._refused(data),
            "reissued": lambda _event, data: f"step {data['step']} is asked for again: it was lost with its worker",
            "asked": lambda _event, data: f"a person is asked {_ASKED[data['question']]}: {', '.join(data['tools'])}",
            "approved": lambda _event, data: f"{data['by']} approved {_decided(data)}",
            "denied": lambda _event, data: f"{data['by']} denied {_decided(data)}",
            "answered": lambda _event, data: f"{data['by']} said what has come of {_decided(data)}",
            "parked": lambda _event, _data: "waits for a person; no worker holds it",
            "cancel_requested": lambda _event, _data: "a cancel was asked for",
            "cancelling": lambda _event, _data: "the cancel is being carried out",
            "reopened": lambda _event, data: f"reopened{_START_OVER if data.get('start_over') else ''}",
            "handed_over": lambda _event, _data: "let go as it is: any worker goes on",
            "reaped": lambda event, _data: f"taken from worker {event['worker']}, whose lease had run out",
            "released": lambda event, _data: f"left behind by worker {event['worker']}",
            "crashed": lambda _event, data: f"let go: its worker could not carry it; again in {data['delay']} s",
            "retried": lambda event, data: f"attempt failed: {self._error(event)}; the next in {data['delay']} s",
        }

    def of(self, event: Row) -> str:
        """Say what happened; an event without words of its own is its name and its data."""
        name, data = event["name"], event["data"]
        if name in self._said:
            return self._said[name](event, data)
        if name in TERMINAL:
            return f"{name}: {self._error(event)}" if data.get("code") else name
        pairs = " ".join(f"{key}={value}" for key, value in data.items() if value is not None)
        return f"{name.replace('_', ' ')} {pairs}".rstrip()

    def _refused(self, data: Row) -> str:
        times = f"the provider has refused {data['failures']} times"
        return f"{times}, and is asked again: {data['code']}" if data["code"] else f"{times}, and answers again"

    def _created(self, data: Row) -> str:
        request = f" (request {data['request_id']})" if data.get("request_id") else ""
        return f"step {data['step']} created at the provider: {data['provider_id']}{request}"

    def _call(self, data: Row) -> str:
        call = self._calls.get(data["call_id"], {})
        took = f" in {number(call['seconds'], 3)} s" if call.get("seconds") is not None else ""
        came_to = data.get("error") or "completed"
        return f"{call.get('name', 'of another run')} ({data['call_id']}): {came_to}{took}"

    def _error(self, event: Row) -> str:
        """Give the error of the event's attempt; the run's own where the attempt has gone on to another end."""
        code = event["data"].get("code")
        attempt = self._attempts.get(event["attempt"], {})
        error = self._view.error or {}
        messages = {attempt.get("error_code"): attempt.get("error_message"), error.get("code"): error.get("message")}
        flags = [name for name in ("unknown", "adopted", "reissued") if attempt.get(name)]
        said = f"{code}: {messages.get(code) or 'no message'}"
        return f"{said} ({', '.join(flags)})" if flags else said
