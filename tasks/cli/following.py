"""A run shown as it goes on: what the model says on stdout, what happens besides on stderr."""

from tasks import runs
from tasks.cli.output import ERR, OUT, clean, emit_line, note, number
from tasks.cli.run_tables import STYLES, called, short
from tasks.cli.waiting import LISTS, hint
from worker.lifecycle import TERMINAL, Status
from worker.producer import producer
from worker.store.reading import RunView
from worker.watching.telling import RunEvent


def follow(handle: runs.RunHandle, *, after: str | None, timeout: float | None, as_json: bool) -> RunView:
    """Show what happens to a run until it has ended or the time is over, and return it."""
    if handle.status() not in TERMINAL:
        hint(producer().database, ERR)
    screen = Screen()
    try:
        for event in handle.events(after, timeout):
            if as_json:
                emit_line(event.as_json())
            else:
                screen.show(event)
    except TimeoutError as error:
        screen.end_line()
        note(f"{error}; it goes on: `runwright watch {handle.id}`")
    return handle.result()


class Screen:
    """Keeps what the model says and what happens on lines of their own."""

    def __init__(self) -> None:
        self._open = False

    def show(self, event: RunEvent) -> None:
        """Show one event."""
        if event.restart:
            self._break()
            self._note("begun anew; what the model has said of this step is void", "yellow")
        self._say(event.text or "")
        match event.kind:
            case "status":
                self._note(_status(event), STYLES.get(event.status.value, "dim"))
            case "calls":
                for call in event.calls:
                    self._note(f"calls {call['name']} {short(call['arguments'])}", "dim")
            case "output":
                for call in event.calls:
                    told = call.get("error") or short(str(call.get("output") or ""))
                    took = "" if call.get("seconds") is None else f" in {number(call['seconds'], 1)} s"
                    self._note(f"{called(call) if 'name' in call else 'a call before this run'}{took}: {told}", "dim")
            case "question":
                self._note(f"waits for a person: `{LISTS[event.question or 'approval']}`", "yellow")
            case "end":
                self._end(event)

    def _say(self, text: str) -> None:
        if text:
            OUT.print(clean(text), end="", soft_wrap=True)
            self._open = not text.endswith("\n")

    def _end(self, event: RunEvent) -> None:
        self._break()
        if event.status is not Status.COMPLETED:
            said = f": {event.error['code']}: {event.error['message']}" if event.error else ""
            self._note(f"{event.status}{said}", STYLES.get(event.status.value, ""))

    def end_line(self) -> None:
        """Break the line on a terminal; in a file what the model says stays as it is."""
        if OUT.is_terminal:
            self._break()

    def _break(self) -> None:
        if self._open:
            OUT.print()
            self._open = False

    def _note(self, text: str, style: str) -> None:
        self.end_line()
        ERR.print(clean(text, style), soft_wrap=True)


def _status(event: RunEvent) -> str:
    again = f"; the next attempt in {number(event.delay, 1)} s" if event.delay is not None else ""
    return f"{event.status}: {event.error['code']}{again}" if event.error else event.status.value
