"""A run's chain of steps at the provider: each created once, waited for, found again where its answer was lost."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from time import monotonic

import structlog

from tools.outcome import error_output
from worker.backends.base import Answer, Created, Done, Ended, Failed, Following, Look, NeedsTools, Pending, Step
from worker.calls import NEVER_RAN, Calls
from worker.crashpoints import reach
from worker.errors import ProviderError
from worker.limits.gates import Admission
from worker.looks import Watch
from worker.pace import Pace, TimeUp
from worker.response import Asked, Usage
from worker.retries import backoff
from worker.store import progress, reading

_log = structlog.get_logger(__name__)


class Chain:
    """The step in hand of one held run, and the conversation that it goes on."""

    def __init__(self, pace: Pace) -> None:
        claim = pace.claim
        self._pace = pace
        self._claim = claim
        self._parts = pace.parts
        self._settings = pace.settings
        self._backend = pace.parts.backend
        self.number = claim.step
        self._provider_id = claim.provider_id
        self._conversation = claim.conversation
        self._created = claim.created
        self._following: Following | None = None
        self._began = monotonic() - claim.step_age
        self._lost = claim.intent_step == claim.step
        self._admitted = pace.parts.limits.resumed(claim)
        self._last_item = claim.intent_after if self._lost else claim.last_item
        self._asked: Sequence[Asked] = ()
        self.adopted = False
        """The result of the step in hand was found in the conversation."""
        self.unclear = False
        """A response may go on there, or nobody knows: the conversation is not to be used again."""

    def leave_if_open(self) -> None:
        """Give the conversation up where the provider has taken on the step in hand, or may have."""
        self.unclear = self.unclear or self._lost or self._provider_id is not None

    def close(self) -> None:
        """Let go of the run's place in the provider's limits, and follow the step no more; it goes on there."""
        self._admitted.leave()
        self._unfollow()

    def _unfollow(self) -> None:
        if self._following is not None:
            self._following.close()
        self._following = None

    async def ended(self) -> Ended:
        """Return how the step in hand ended: begin it, once, or go on with what a worker before has begun."""
        ended = await self._carried_out()
        self._admitted.ended(ended)
        return ended

    async def _carried_out(self) -> Ended:
        if self._provider_id is None:
            step = await self._next_step()
            if self._lost or not await self._create(step):
                return await self._find(step)
        return await self._wait()

    def settled(self, asked: NeedsTools) -> None:
        """Go on to the next step: the calls of this one are in the ledger."""
        self._unfollow()
        self.number, self._provider_id, self._last_item = self.number + 1, None, asked.last_item
        self._lost = self.adopted = False
        self._asked = asked.calls

    # ── begin ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _next_step(self) -> Step:
        """Answer the open calls and say what the next step is; its conversation and how that ends are known then.

        A step that was lost is only to be found: what creating it takes, as its tools, is left to `_to_create`.
        """
        calls = Calls(self._pace, self._asked)
        if not self._lost:
            self._check_steps()
            calls.tools()  # before any call runs: what is missing here, another worker may have
        answers = await calls.answers() if self._conversation else []
        self._pace.heed()  # tools take time: what was asked meanwhile saves a provider run
        conversation = self._conversation or await self._open_conversation()
        step = Step(
            run_id=self._claim.run_id,
            thread_id=self._claim.thread_id,
            attempt=self._claim.attempt,
            number=self.number,
            conversation=conversation,
            config=self._claim.config,
            tools=(),
            # A step goes on from the calls of the one before; where they are answered already, the run asks anew.
            input=() if calls.continues else self._claim.input,
            answers=answers,
            stream=self._claim.config.get("stream", self._settings.stream == "on"),
        )
        return step if self._lost else await self._to_create(step, repair=self._last_item is None)

    def _check_steps(self) -> None:
        most = self._claim.config.get("max_steps", self._settings.max_steps)
        if self._created >= most:
            told = f"the model still asked for tools after {self._created} steps; max_steps of the assistant is {most}"
            raise ProviderError("max_steps", told)

    async def _to_create(self, step: Step, *, repair: bool) -> Step:
        """Complete a step with its tools, and with answers to calls in the conversation that no ledger knows."""
        tools = Calls(self._pace).tools()
        repairs = await self._repairs(step.conversation, step.answers) if repair else []
        return replace(step, tools=tools, answers=[*repairs, *step.answers])

    async def _open_conversation(self) -> str:
        thread_id = self._claim.thread_id
        # Nothing was said before the first attempt at a thread's first run.
        fresh = self._claim.seq == 1 and self._claim.attempt == 1
        history = [] if fresh else await self._parts.store.read(reading.messages, thread_id)
        reach("outside.open_conversation.before")
        conversation = await self._pace.patiently(lambda: self._backend.open_conversation(thread_id, history))
        reach("outside.open_conversation.after")
        self._conversation, self._last_item = conversation, None if history else ""
        await self._pace.write(progress.set_conversation, conversation, self._last_item)
        return conversation

    async def _repairs(self, conversation: str, answers: Sequence[Answer]) -> list[Answer]:
        """Learn how the conversation ends, and answer the calls there that no ledger knows: they would block it."""
        tail = await self._pace.patiently(lambda: self._backend.tail(conversation))
        if self._last_item is None:
            self._last_item = tail.last_item
        known = {answer.call_id for answer in answers}
        return [Answer(call_id, error_output(*NEVER_RAN)) for call_id in tail.open_calls if call_id not in known]

    async def _create(self, step: Step) -> bool:
        """Create the step; false where the provider may have it all the same and did not say."""
        created = await self._pace.patiently(lambda: self._create_once(step), whole=True)
        if created is not None:
            await self._keep(created)
        return created is not None

    async def _create_once(self, step: Step) -> Created | None:
        """Create the step when the provider's limits let it pass; None where the answer was lost."""
        limits, claim = self._parts.limits, self._claim
        admitted = limits.at_once(step, claim)
        if admitted is None:
            admitted = await self._pace.unless_told(partial(limits.admit, step, claim))
        with admitted:
            return await self._create_admitted(step, admitted)

    async def _create_admitted(self, step: Step, admitted: Admission) -> Created | None:
        """Commit the intent inside a slot, so that a run that only queues for one is never of unknown outcome."""
        slot = self._backend.slot()
        await self._pace.unless_told(slot.acquire)
        try:
            self._pace.heed()
            await self._pace.until_leased()
            await self._pace.write(progress.intend, self.number, self._last_item)
            reach("outside.create.before")
            self._admitted = admitted
            admitted.goes_out()
            try:
                created = await self._backend.create(step)
            except ProviderError as error:
                reach("outside.create.after")
                admitted.failed(error)
                if error.unknown:
                    self._lost, self._began = True, monotonic()
                    self._pace.emit("run.answer_lost", code=error.code, message=error.message)
                    return None
                if not self._lost:  # else the intent still stands for the create before
                    await self._pace.write(progress.withdraw)
                raise
            reach("outside.create.after")
            admitted.taken(created)
            return created
        finally:
            slot.release()

    async def _keep(self, created: Created) -> None:
        self._provider_id, self._began, self._lost = created.id, monotonic(), False
        self._following = created.following
        self._created += 1
        await self._pace.write(progress.created, self.number, created.id, created.request_id)
        self._pace.emit("run.created", step=self.number, provider_id=created.id, request_id=created.request_id)

    # ── find again ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _find(self, step: Step) -> Ended:
        """Find the result of a create whose answer was lost; what is not found fails, or is created again."""
        while (found := await self._search(step)) is None:
            await self._give_up_looking()
            if self._settings.on_unknown == "fail":
                self.unclear = True
                told = "the answer to a create was lost, and the provider may have run this step"
                raise ProviderError("unknown_outcome", f"{told}; `runwright retry` asks again")
            again = await self._to_create(step, repair=True)
            got = await self._pace.patiently(partial(self._found_or_created, again), whole=True)
            if isinstance(got, Created):
                await self._keep(got)
                return await self._wait()
            if got is not None:
                return got
        return found

    async def _search(self, step: Step) -> Ended | None:
        """Look for as long as the result may take to come.

        Only a response that has ended leaves its items in the conversation, so the looking takes what the model takes.
        """
        looks, until = 0, self._began + self._settings.adoption_wait
        while (found := await self._pace.patiently(lambda: self._adopt(step))) is None and monotonic() < until:
            looks += 1
            await self._rest(looks)
        return found

    async def _adopt(self, step: Step) -> Ended | None:
        reach("outside.adopt.before")
        try:
            found = await self._backend.adopt(step, self._last_item or "")
        except ProviderError as error:
            if error.transient:
                raise
            # The conversation is gone, or its last item: nothing will be found there.
            _log.warning("adoption_refused", code=error.code, error=error.message)
            found = None
        reach("outside.adopt.after")
        if found is not None:
            self.adopted = True
            self._pace.emit("run.adopted", step=self.number)
        return found

    async def _found_or_created(self, step: Step) -> Ended | Created | None:
        """Look once more before each create; the provider refuses it for as long as the first response goes on."""
        return await self._adopt(step) or await self._create_once(step)

    async def _give_up_looking(self) -> None:
        await self._pace.write(progress.mark_unknown)
        self._pace.emit("run.unknown", step=self.number)

    # ── wait and stop ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _wait(self) -> Ended:
        """Look at the response when its like may have ended, until it has or has taken too long.

        Where it is followed its end is told, and the looks are for what a silent connection does not tell.
        """
        watch = Watch(self._parts.looks, (self._claim.assistant, self.number > 0), self._began)
        while True:
            if self._following is None:
                await self._pace.pause(watch.pause())
            elif told := await self._told(self._following):
                return told
            look = await watch.look(self._look)
            if not isinstance(look, Pending):
                return look
            if overdue := self._overdue(look):
                return await self._replace(*overdue)

    async def _told(self, following: Following) -> Ended | None:
        """Return the end that the provider tells, None when a look is due: after a while, or since it will not."""
        seconds = self._settings.poll_max
        told = await self._pace.unless_told(lambda: following.ended(seconds))
        if following.broken:
            self._pace.emit("run.stream_broken", step=self.number)
        if following.broken or told:
            self._unfollow()
        return told

    async def _look(self) -> Look:
        provider_id = self._provider_id or ""
        reach("outside.look.before")
        look = await self._pace.patiently(lambda: self._backend.look(provider_id))
        reach("outside.look.after")
        return look

    def _overdue(self, look: Pending) -> tuple[str, str] | None:
        """Say why the step has taken too long, if it has: the provider can leave one in its queue for ever."""
        age, queued = monotonic() - self._began, self._settings.queued_timeout
        limit = self._claim.config.get("step_timeout", self._settings.step_timeout)
        if limit is not None and age > limit:
            return "step_timeout", f"the step took longer than its {limit:g} s"
        if look.queued and age > queued:
            return "stuck_in_queue", f"the provider left the step in its queue for more than {queued:g} s"
        return None

    async def _replace(self, code: str, message: str) -> Ended:
        """Stop the step so that it can be tried again; one that ended well all the same is taken as it is."""
        own_end = self._pace.ends_at
        self._pace.ends_at = min(own_end, monotonic() + self._settings.cancel_timeout)
        try:
            last = await self._stopped()
        finally:
            self._pace.ends_at = own_end
        if isinstance(last, Done | NeedsTools):
            return last
        return Failed(code, message, last.usage if last else Usage(), transient=True)

    async def stop(self) -> Ended | None:
        """Stop what goes on at the provider and return how it ended, which may be as if nobody had asked.

        None where nothing went on, and where nobody can tell, which `unclear` says.
        """
        if self._lost:
            self.unclear = True
            await self._give_up_looking()
        if self._provider_id is None:
            return None
        self._pace.last(self._settings.cancel_timeout)
        last = await self._stopped()
        if last is not None:
            self._admitted.ended(last)
        return last

    async def _stopped(self) -> Ended | None:
        provider_id = self._provider_id or ""
        self._unfollow()  # no event tells of a cancel
        try:
            reach("outside.cancel.before")
            await self._pace.patiently(lambda: self._backend.cancel(provider_id))
            reach("outside.cancel.after")
            return await self._end_of_what_is_stopped()
        except (TimeUp, ProviderError) as error:
            _log.warning("cancel_unconfirmed", provider_id=provider_id, error=str(error) or "no answer in time")
            self.unclear = True
            return None

    async def _end_of_what_is_stopped(self) -> Ended:
        """Look in growing pauses: how long its like takes says nothing any more."""
        looks = 1
        await self._rest(looks)
        while isinstance(look := await self._look(), Pending):
            looks += 1
            await self._rest(looks)
        return look

    async def _rest(self, looks: int) -> None:
        await self._pace.pause(backoff(looks, self._settings.poll_min, self._settings.poll_max))
