"""One step that the provider has taken on: waited for until it has ended, stopped where it must not go on."""

from time import monotonic

import structlog

from worker.assistants import windows
from worker.backends.base import Backend, Created, Done, Ended, Failed, Following, Look, NeedsTools, Pending
from worker.crashpoints import reach
from worker.errors import ProviderError
from worker.retries import backoff
from worker.run.looks import PATIENT, USUAL, Watch
from worker.run.pace import Pace, Rest, TimeUp

_log = structlog.get_logger(__name__)
_WINDOWS_A_STEP = 2.0  # a window is a target: a step may take so many before the settings' limits hold
_LINE = 10.0  # seconds after which one that stands in line sees for itself whether it has to


class Flight:
    """The step in hand from its id to its end."""

    __slots__ = (
        "_backend",
        "_began",
        "_following",
        "_in_time",
        "_look_at",
        "_number",
        "_pace",
        "_settings",
        "_watch",
        "id",
        "unclear",
    )

    def __init__(
        self,
        pace: Pace,
        backend: Backend,
        created: Created,
        *,
        number: int,
        age: float = 0.0,
        seen: float | None = None,
    ) -> None:
        """Take over what was created `age` seconds ago, and looked at when it was `seen` seconds old."""
        self.id = created.id
        self._following: Following | None = created.following
        self._pace = pace
        self._backend = backend
        self._settings = pace.settings
        self._number = number
        self._began = monotonic() - age
        kind = (pace.claim.assistant, number > 0)
        window = windows.seconds(pace.claim.config)
        self._in_time = _WINDOWS_A_STEP * window
        patience = PATIENT if window else USUAL
        self._watch = Watch(pace.parts.looks, kind, self._began, seen=seen, patience=patience)
        # Where it is decided already: by the provider, or when the run was parked, since each claim is to be a look.
        self._look_at = None if seen is None else monotonic()
        self.unclear = False
        """Nobody knows whether it has ended."""

    def leave(self) -> None:
        """Follow it no more; it goes on there, where the provider can go on without us."""
        if self._following is not None:
            self._following.close()
        self._following = None
        if self._watch.stands:
            self._watch.leave()
            self._backend.readers.leave_line(self._called)
            self._backend.readers.call_next()  # its turn may have come

    async def ended(self) -> Ended:
        """Look at it when its like may have ended, until it has or has taken too long.

        Where it is followed its end is told, and the looks are for what a silent connection does not tell. Raises Rest
        where the next look is not due for long, and goes on from there when it is called again.
        """
        while True:
            if self._following is None:
                self._until_due()
            elif told := await self._told(self._following):
                return told
            look = Pending() if self._only_told() else await self._watch.look(self._look)
            if not isinstance(look, Pending):
                return look
            if look.look_after is not None:
                self._look_at = monotonic() + self._within(look.look_after)
            if overdue := self._overdue(look):
                return await self._replace(*overdue)

    def _until_due(self) -> None:
        """Raise Rest until it is to be asked: its look is due, and there is a place for it.

        Until it is due (`Watch.due`) the run rests without a task, and its alarm (`Held.rests`) leads here again. From
        then on it stands (`Watch.stand`), so that who comes later pays for the crowd. Where no reader is free it rests
        in their line, whose first is called by each place that is given back (`Readers.call_next`); being told
        (`Held.tell`) leads here once more. The answer of the look ends the standing (`Watch.leave`).
        """
        self._pace.heed()
        if self._watch.stands:
            self._keep_in_line()
            return
        if self._look_at is not None:
            self._pace.rest_until(self._look_at, self._watch.seen)
            self._look_at = None
        elif due := self._watch.due():
            self._pace.rest_until(due, self._watch.seen)
        if self._backend.readers.busy:
            self._stand_in_line()

    def _stand_in_line(self) -> None:
        """Rest until it is this look's turn: so many are due at once that they would fill the memory with tasks."""
        self._watch.stand()
        self._backend.readers.stand_in_line(self._called)
        self._keep_in_line()

    def _keep_in_line(self) -> None:
        """Rest for as long as nobody has called this look, and there is no place for it."""
        readers = self._backend.readers
        if readers.busy and readers.stands_in_line(self._called):
            raise Rest(min(_LINE, self._pace.seconds_left()))
        readers.leave_line(self._called)

    def _called(self) -> None:
        """Go on, since it is this look's turn."""
        self._pace.held.tell()

    def _within(self, look_after: float) -> float:
        """Take the provider's wish as far as ours go: no word of a server keeps a run waiting for ever."""
        return min(max(look_after, self._settings.poll_min), self._settings.poll_max)

    def _only_told(self) -> bool:
        """Tell whether looking tells nothing: the step lives on its connection."""
        return self._following is not None and not self._backend.can.resumes

    async def _told(self, following: Following) -> Ended | None:
        """Return the end that the provider tells, None when a look is due: after a while, or since it will not.

        A worker that stops leaves what goes on without it, and gives its grace to what does not.
        """
        seconds = self._settings.poll_max
        if self._only_told() and (limit := self._limit()) is not None:
            seconds = min(seconds, max(0.0, limit - (monotonic() - self._began)))
        told = await self._pace.unless_told(lambda: following.ended(seconds), stop=self._backend.can.resumes)
        if following.broken:
            self._pace.emit("run.stream_broken", step=self._number)
        if following.broken or told:
            self.leave()
        return told

    async def _look(self) -> Look:
        reach("outside.look.before")
        look = await self._pace.patiently(lambda: self._backend.look(self.id))
        reach("outside.look.after")
        return look

    def _overdue(self, look: Pending) -> tuple[str, str] | None:
        """Say why the step has taken too long, if it has: the provider can leave one in its queue for ever."""
        age = monotonic() - self._began
        queued = max(self._settings.queued_timeout, self._in_time)
        limit = self._limit()
        if limit is not None and age >= limit:
            return "step_timeout", f"the step took longer than its {limit:g} s"
        if look.queued and age > queued:
            return "stuck_in_queue", f"the provider left the step in its queue for more than {queued:g} s"
        return None

    def _limit(self) -> float | None:
        """Return the seconds that the step may take."""
        own: float | None = self._pace.claim.config.get("step_timeout")
        usual = self._settings.step_timeout
        return own or (usual and max(usual, self._in_time))

    async def _replace(self, code: str, message: str) -> Ended:
        """Stop the step so that it can be tried again; one that ended well all the same is taken as it is."""
        with self._pace.apart():
            self._pace.ends_at = min(self._pace.ends_at, monotonic() + self._settings.cancel_timeout)
            last = await self.stopped()
        if isinstance(last, Done | NeedsTools):
            return last
        return Failed.after(last, code, message, transient=True)

    async def stopped(self) -> Ended | None:
        """Stop the step and return how it ended, which may be as if nobody had asked; None where nobody can tell."""
        self.leave()  # no event tells of a cancel
        with self._pace.held_back():
            await self._pace.until_leased()  # else it may be another worker's, who waits for it
        try:
            reach("outside.cancel.before")
            await self._pace.patiently(lambda: self._backend.cancel(self.id))
            reach("outside.cancel.after")
            return await self._end_of_what_is_stopped()
        except (TimeUp, ProviderError) as error:
            _log.warning("cancel_unconfirmed", provider_id=self.id, error=str(error) or "no answer in time")
            self.unclear = True
            return None

    async def _end_of_what_is_stopped(self) -> Ended:
        """Look in growing pauses: how long its like takes says nothing any more."""
        looks = 1
        await self._pause(looks)
        while isinstance(look := await self._look(), Pending):
            looks += 1
            await self._pause(looks)
        return look

    async def _pause(self, looks: int) -> None:
        await self._pace.pause(backoff(looks, self._settings.poll_min, self._settings.poll_max))
