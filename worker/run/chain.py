"""A run's chain of steps at the provider: each created once, waited for, found again where its answer was lost."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from time import monotonic

import structlog

from worker.assistants import windows
from worker.backends.base import Backend, Created, Ended, Failed, NeedsTools, Step
from worker.backends.places import Place
from worker.crashpoints import reach
from worker.errors import ProviderError
from worker.limits.gates import Admission
from worker.response import Asked, Usage
from worker.retries import backoff
from worker.run.calls import Calls
from worker.run.conversation import Conversation
from worker.run.flight import Flight
from worker.run.pace import Pace
from worker.store import progress
from worker.watching.live import voice

_log = structlog.get_logger(__name__)


class Chain:
    """The step in hand of one held run; docs/architecture.md has a table of where it may stand, by these fields."""

    __slots__ = (
        "_admitted",
        "_again",
        "_asked",
        "_backend",
        "_can",
        "_claim",
        "_conversation",
        "_created",
        "_flight",
        "_lost",
        "_lost_since",
        "_pace",
        "_parts",
        "_place",
        "_previous",
        "_sent",
        "_settings",
        "_unclear",
        "adopted",
        "number",
    )

    def __init__(self, pace: Pace) -> None:
        """Take up what the run's rows say."""
        claim = pace.claim
        self._pace = pace
        self._claim = claim
        self._parts = pace.parts
        self._settings = pace.settings
        self._place = Place.parse(claim.stays_at) if claim.stays_at else pace.parts.backends.place(claim.config)
        self._can = self._place.can
        self._backend: Backend
        self._conversation: Conversation
        self.number = claim.step
        self._created = claim.created
        intended = claim.intent_step == claim.step
        self._lost_since = monotonic() - claim.step_age
        self._flight: Flight | None = None
        self._sent = 0.0
        # Where the provider does not go on with a step by itself, what a worker has left is gone.
        self._again = not self._can.resumes and (intended or claim.provider_id is not None)
        self._previous = claim.previous if self._can.holds else None
        # What waits for outputs is known by its id, and takes them once more without harm.
        self._lost = intended and self._can.resumes and self._previous is None
        self._admitted = pace.parts.limits.resumed(claim)
        self._asked: Sequence[Asked] = ()
        self._unclear = False
        self.adopted = False
        """The result of the step in hand was found in the conversation."""

    def open(self) -> None:
        """Find the way to the run's provider; raises ProviderError where this worker has none."""
        underway = self._claim.provider_id if self._can.resumes else None
        self._unclear = underway is not None  # until there is a way to it
        self._backend = self._parts.backends.at(self._place)
        self._unclear = False
        self._conversation = Conversation(self._pace, self._place, self._backend, lost=self._lost)
        if underway is not None:
            self._flight = self._fly(Created(underway), age=self._claim.step_age, seen=self._claim.seen)

    def _fly(self, created: Created, *, age: float = 0.0, seen: float | None = None) -> Flight:
        self._claim.input.clear()  # the provider has it
        return Flight(self._pace, self._backend, created, number=self.number, age=age, seen=seen)

    @property
    def unclear(self) -> bool:
        """Whether a step may go on there, or nobody knows: the conversation is not to be used again."""
        return self._unclear or (self._flight is not None and self._flight.unclear)

    @property
    def begun(self) -> bool:
        """Whether a step of the attempt was taken on, or may have been: its time counts whoever has it."""
        return self._created > 0 or self._lost

    def leave(self) -> None:
        """Have the thread go on in a fresh conversation, whatever goes on in this one."""
        self._unclear = True

    def leave_if_open(self) -> None:
        """Have it go on in a fresh one where the provider goes on with the step in hand, or may."""
        open_there = self._lost or self._flight is not None or self._previous is not None
        self._unclear = self._unclear or (self._can.resumes and open_there)

    def close(self) -> None:
        """Let go of the run's place in the provider's limits, and follow the step no more; it goes on there."""
        self._admitted.leave()
        if self._flight is not None:
            self._flight.leave()

    async def ended(self) -> Ended:
        """Return how the step in hand ended: begin it, once, or go on with what a worker before has begun."""
        return self._counted(await self._carried_out())

    async def _carried_out(self) -> Ended:
        if self._flight is None:
            step = await self._next_step()
            created = None if self._lost else await self._pace.patiently(partial(self._create_once, step), whole=True)
            begun = await self._find(step) if created is None else created
            if not isinstance(begun, Created):
                return begun
            await self._keep(begun)
        assert self._flight is not None  # noqa: S101 - for the type checker: _keep has set it
        return await self._flight.ended()

    def _counted(self, ended: Ended) -> Ended:
        usage = windows.charged(ended.usage, self._claim.config)
        ended = ended if usage is ended.usage else replace(ended, usage=usage)
        self._admitted.ended(ended)
        return ended

    def settled(self, asked: NeedsTools) -> None:
        """Go on to the next step: the calls of this one are in the ledger."""
        if self._flight is not None:
            self._flight.leave()
            self._previous = self._flight.id if self._can.holds else None
        self.number, self._flight = self.number + 1, None
        self._lost = self.adopted = False
        self._asked = asked.calls
        self._conversation.goes_on(asked)

    # ── begin ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _next_step(self) -> Step:
        """Answer the open calls and say what the next step is; its conversation and how that ends are known then.

        A step that was lost is only to be found: what creating it takes, as its tools, is left to `_to_create`.
        """
        calls = Calls(self._pace, self._asked)
        if not self._lost:
            self._check_steps()
            self._place.check(self._claim.config)
            calls.tools()  # before any call runs: what is missing here, another worker may have
        answers = await calls.answers() if self._conversation.id else []
        self._pace.heed()  # tools take time: what was asked meanwhile saves a provider run
        conversation = await self._conversation.opened()
        step = Step(
            run_id=self._claim.run_id,
            thread_id=self._claim.thread_id,
            attempt=self._claim.attempt,
            number=self.number,
            conversation=conversation,
            config=self._claim.config,
            tools=(),
            input=() if calls.continues else self._input(),
            answers=answers,
            stream=self._claim.config.get("stream", self._settings.stream == "on"),
            history=await self._conversation.kept(),
            previous=self._previous,
            earlier=await calls.earlier() if self._can.holds else (),
        )
        return step if self._lost else await self._to_create(step, repair=self._conversation.last_item is None)

    def _input(self) -> list[object]:
        """Return what the run asks; under this claim only until the provider has it."""
        if self.number > self._claim.step:  # else the step would ask nothing, unnoticed
            raise RuntimeError(f"step {self.number} goes on from no calls: the provider wants outputs of none")
        return list(self._claim.input)

    def _check_steps(self) -> None:
        most = self._claim.config.get("max_steps", self._settings.max_steps)
        if self._created >= most:
            told = f"the model still asked for tools after {self._created} steps; max_steps of the assistant is {most}"
            raise ProviderError("max_steps", told)

    async def _to_create(self, step: Step, *, repair: bool) -> Step:
        """Complete a step with its tools, and with answers to calls in the conversation that no ledger knows."""
        tools = Calls(self._pace).tools()
        repairs = await self._conversation.repairs(step.answers) if repair else []
        return replace(step, tools=tools, answers=[*repairs, *step.answers])

    async def _create_once(self, step: Step) -> Created | Failed | None:
        """Create the step when the provider's limits let it pass; None where nobody knows whether it has it."""
        limits, claim = self._parts.limits, self._claim
        if (admitted := limits.at_once(step, claim)) is None:
            with self._pace.held_back():
                admitted = await self._pace.unless_told(partial(limits.admit, step, claim))
        with admitted:
            return await self._create_admitted(step, admitted)

    async def _create_admitted(self, step: Step, admitted: Admission) -> Created | Failed | None:
        """Commit the intent inside a slot, so that a run that only queues for one is never of unknown outcome."""
        slots, keeps_slot = self._backend.slots, False
        with self._pace.held_back():
            await self._pace.unless_told(slots.acquire)
        try:
            self._pace.heed()
            await self._pace.until_leased()
            told = {"again": self._again, "seconds_left": self._pace.moved()}
            await self._pace.write(progress.intend, self.number, self._conversation.last_item, **told)
            if self._again:
                self._pace.emit("run.reissued", step=self.number)
            self._again = False
            reach("outside.create.before")
            self._admitted = admitted
            admitted.goes_out()
            try:
                created = await self._asked_for(step)
            except ProviderError as error:
                reach("outside.create.after")
                admitted.failed(error)
                if error.unknown:
                    return self._answer_lost(error)
                if not self._lost:  # else the intent still stands for the create before
                    await self._pace.write(progress.withdraw)
                raise  # here: a frame that has the error for an argument would be a cycle with it
            keeps_slot = created.keeps_slot
            reach("outside.create.after")
            admitted.taken(created)
            return created
        finally:
            if not keeps_slot:
                slots.release()

    async def _asked_for(self, step: Step) -> Created:
        """Create it; what only lives on its connection may be left, and is, where the run is to end."""
        self._sent = monotonic()
        # From its beginning: what watchers have heard of an earlier try is void.
        say = voice(self._claim, self._settings, self._pace.emit, step.number)
        heard = replace(step, on_text=say) if say else step
        if self._can.resumes:
            return await self._backend.create(heard)
        return await self._pace.unless_told(lambda: self._backend.create(heard), stop=False)

    def _answer_lost(self, error: ProviderError) -> Failed | None:
        """Say what comes of a create that nobody knows the outcome of: None where it is to be looked for."""
        self._pace.emit("run.answer_lost", code=error.code, message=error.message)
        if not self._can.resumes:
            return Failed(error.code, error.message, Usage(), transient=True)
        self._lost, self._lost_since = True, monotonic()
        return None

    async def _keep(self, created: Created) -> None:
        # A connection tells its first event when the model begins, which may be minutes after it was asked.
        age = 0.0 if self._can.resumes else monotonic() - self._sent
        self._flight, self._lost, self._asked = self._fly(created, age=age), False, ()
        self._created += 1
        await self._pace.write(progress.created, self.number, created.id, created.request_id)
        self._pace.emit("run.created", step=self.number, provider_id=created.id, request_id=created.request_id)

    # ── find again ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _find(self, step: Step) -> Created | Ended:
        """Find a create whose answer was lost, or its result; what is not found fails, or is created again."""
        while (found := await self._search(step)) is None:
            await self._give_up_looking()
            if self._settings.on_unknown == "fail":
                self._unclear = True
                told = "the answer to a create was lost, and the provider may have run this step"
                raise ProviderError("unknown_outcome", f"{told}; `runwright retry` asks again")
            again = await self._to_create(step, repair=True)
            found = await self._pace.patiently(partial(self._found_or_created, again), whole=True)
            if found is not None:
                return found
        return found

    async def _search(self, step: Step) -> Created | Ended | None:
        """Look for as long as the result may take to come.

        Only a response that has ended leaves its items in the conversation, so the looking takes what the model takes.
        """
        looks, until = 0, self._lost_since + self._settings.adoption_wait
        while (found := await self._pace.patiently(lambda: self._adopt(step))) is None and monotonic() < until:
            looks += 1
            await self._pace.pause(backoff(looks, self._settings.poll_min, self._settings.poll_max))
        return found

    async def _adopt(self, step: Step) -> Created | Ended | None:
        reach("outside.adopt.before")
        try:
            found = await self._backend.adopt(step, self._conversation.last_item or "")
        except ProviderError as error:
            if error.transient:
                raise
            _log.warning("adoption_refused", code=error.code, error=error.message)
            found = None  # the conversation is gone, or its last item: nothing will be found there
        reach("outside.adopt.after")
        if found is not None:
            self.adopted = not isinstance(found, Created)
            self._pace.emit("run.adopted", step=self.number)
        return found

    async def _found_or_created(self, step: Step) -> Created | Ended | None:
        """Look once more before each create; the provider refuses it for as long as the first response goes on."""
        return await self._adopt(step) or await self._create_once(step)

    async def _give_up_looking(self) -> None:
        await self._pace.write(progress.mark_unknown)
        self._pace.emit("run.unknown", step=self.number)

    # ── stop ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def stop(self) -> Ended | None:
        """Stop what goes on at the provider and return how it ended, which may be as if nobody had asked.

        None where nothing went on, and where nobody can tell, which `unclear` says.
        """
        if self._lost:
            self._unclear = True
            await self._give_up_looking()
        held = self._flight is None
        if held and self._previous is not None:
            self._flight = self._fly(Created(self._previous))
        if self._flight is None:
            return None
        self._pace.last(self._settings.cancel_timeout)
        if (last := await self._flight.stopped()) is not None:
            last = self._counted(last)
        return None if held and isinstance(last, NeedsTools) else last  # its calls are in the ledger already

    async def let_go(self) -> Ended | None:
        """End what the provider holds open for answers that will not come, or not to it; returns how that has ended."""
        if self._flight is not None or self._previous is None:
            return None
        held = self._fly(Created(self._previous))
        with self._pace.apart():
            self._pace.last(self._settings.cancel_timeout)
            last = await held.stopped()
        self._previous, self._unclear = None, self._unclear or held.unclear
        return last
