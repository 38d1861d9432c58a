"""What a watcher has heard of the step in hand, joined, to tell what is new of it and what is missing."""

from worker.watching.live import Entry


class Said:
    """The text of the newest step that said something; None where its beginning was lost."""

    def __init__(self) -> None:
        self.fence = 0
        """Of the newest worker that was heard."""
        self._told_by = 0
        self._step = -1
        self._text: str | None = ""

    def take(self, entry: Entry) -> bool:
        """Add a piece; returns whether it begins a step anew that had said something already."""
        again = entry.offset == 0 and self._text != "" and entry.step <= self._step
        if entry.offset == 0:
            self._text = entry.text
        elif self._follows(entry) and self._text is not None:
            self._text += entry.text
        else:
            self._text = None
        self.fence = self._told_by = entry.fence
        self._step = entry.step
        return again

    def _follows(self, entry: Entry) -> bool:
        here = (self._told_by, self._step, len(self._text or ""))
        return here == (entry.fence, entry.step, entry.offset)

    def rest(self, answer: str, step: int, *, lost: bool) -> tuple[int, str, bool]:
        """Return what of the answer is missing: at which offset, its text, and whether what came before is void.

        `lost` says that there was text which cannot be read any more.
        """
        if self._step < step or self._text == "":
            return 0, answer, lost
        if self._text is not None and answer.startswith(self._text):
            return len(self._text), answer[len(self._text) :], False
        return 0, answer, bool(answer)
