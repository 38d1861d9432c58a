"""Assistants v2: one run at the server for all steps of an attempt, which waits there for the outputs of its calls.

The message goes out together with its run, in one request, and each run says in its metadata whose it is, so that one
whose answer was lost is found again. A run that waits for outputs expires (OpenAI: ten minutes after it was created);
one that has done so is gone on from in another, which is told the outputs as a message.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import structlog

from worker.assistants.prices import Prices
from worker.backends.assistants import meaning, paths, requests
from worker.backends.assistants.bodies import Made, MessageBody, Page, RunBody
from worker.backends.assistants.catalogue import Catalogue
from worker.backends.assistants.lists import listed
from worker.backends.assistants.steps import Steps
from worker.backends.base import Created, Done, Ended, Look, NeedsTools, Pending, Step, Tail
from worker.backends.places import PROTOCOLS
from worker.backends.transport.connections import Http, Reply, encode
from worker.backends.transport.faults import CONVERSATION_GONE, kept_out
from worker.errors import ProviderError
from worker.response import Opened, Usage

_log = structlog.get_logger(__name__)
HEADERS = {"OpenAI-Beta": "assistants=v2"}
# The most that a thread is created with. The published document does not say so, the server does ("ensure this value
# has at most 32 items", github.com/openai-php/client/issues/269).
_MESSAGES = 32
_GOING_ON = frozenset({"queued", "in_progress", "cancelling"})
_ACTIVE = _GOING_ON | {"requires_action"}


class AssistantsBackend:
    """Speaks to one server with one key; bodies go out and come in as they are, checked where a run needs them."""

    can = PROTOCOLS["assistants"]

    def __init__(self, http: Http, prices: Prices, *, cancels_foreign: bool = False) -> None:
        """Take the server's connections, which send `HEADERS` with each request.

        `cancels_foreign` says what becomes of a run on one of our threads that is not ours: cancelled, or waited for.
        """
        self._http = http
        self.slots: asyncio.Semaphore = http.bound
        self.readers = http.readers
        self._prices = prices
        self._cancels_foreign = cancels_foreign
        self._catalogue = Catalogue(self._http)
        self._steps = Steps(self._http)

    async def open_conversation(self, thread_id: str, history: Sequence[Mapping[str, Any]] = ()) -> Opened:
        """Create the thread; an answer that is lost leaves one behind that nobody uses or pays for."""
        said = [requests.message(one["content"], one.get("run_id"), one["role"]) for one in history]
        body = {"metadata": {"thread_id": thread_id[:512]}, **({"messages": said[:_MESSAGES]} if said else {})}
        thread = (await self._http.send("POST", "/threads", encode(body))).read(Made).id
        for message in said[_MESSAGES:]:
            await self._http.send("POST", f"{paths.thread(thread)}/messages", encode(message))
        return Opened(thread)

    # ── begin ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def create(self, step: Step) -> Created:
        """Begin the run of a step, or give the run that waits for them its outputs; a stream is not followed."""
        if step.previous is not None:
            return await self._submit(step, step.previous)
        return await self._begin(step, await self._messages(step))

    async def _messages(self, step: Step) -> list[requests.Body]:
        """Return what the thread lacks: the input, unless an earlier attempt has put it there, or what was called."""
        if not step.input:
            return [requests.told(step)] if step.answers or step.earlier else []
        if step.attempt > 1 and await self._is_there(step):
            return []
        return [requests.message(step.input, step.run_id)]

    async def _is_there(self, step: Step) -> bool:
        path = f"{paths.thread(step.conversation)}/messages?order=desc"
        async for message in listed(self._http, path, Page[MessageBody], inside=True):
            if message.role == "user" and (run_id := message.says("run_id")):
                return bool(run_id == step.run_id)  # runs of a thread go in order: behind another's there is none
        return False

    async def _begin(self, step: Step, messages: list[requests.Body], after: str | None = None) -> Created:
        body = requests.run(step, messages, after)
        try:
            return await self._run(step, body)
        except ProviderError as error:
            if _is_busy(error):
                return await self._behind(step, error)
            raise

    async def _run(self, step: Step, body: requests.Body) -> Created:
        """Create a run once; an assistant that somebody has deleted is made again, since nothing was created then."""
        assistant = await self._catalogue.id_of(step.config, step.tools)
        try:
            return await self._run_of(assistant, step, body)
        except ProviderError as error:
            if error.status != HTTPStatus.NOT_FOUND or "assistant" not in error.message.lower():
                raise
        self._catalogue.forget(assistant)
        return await self._run_of(await self._catalogue.id_of(step.config, step.tools), step, body)

    async def _run_of(self, assistant: str, step: Step, body: requests.Body) -> Created:
        content = encode({"assistant_id": assistant, **body})
        reply = await self._http.send("POST", f"{paths.thread(step.conversation)}/runs", content, creating=True)
        return _created(step.conversation, reply.read(Made, creating=True).id, reply)

    async def _behind(self, step: Step, busy: ProviderError) -> Created:
        """Find out whose run is active: ours is taken up, one that nobody goes on with is ended, others have time."""
        async for run in listed(self._http, paths.runs(step.conversation), Page[RunBody], inside=True):
            if _is_of(run, step):
                return _created(step.conversation, run.id)
            # Nobody else has the thread's turn: a run of ours that is active is what nobody could end before.
            if run.status in _ACTIVE - {"cancelling"} and (run.says("run_id") or self._cancels_foreign):
                _log.warning("active_run_cancelled", provider_id=f"{step.conversation}/{run.id}")
                await self._cancel(paths.provider_id(step.conversation, run.id), inside=True)
            break  # no other can be active: none is begun beside an active one
        raise ProviderError("conversation_locked", busy.message, transient=True, status=busy.status)

    # ── go on ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _submit(self, step: Step, previous: str) -> Created:
        """Give a run its outputs; once more does no harm, so a lost answer is never of unknown outcome."""
        content = encode(requests.outputs(step.answers))
        try:
            reply = await self._http.send("POST", f"{paths.run(previous)}/submit_tool_outputs", content, inside=True)
        except ProviderError as error:
            if error.transient or error.status not in {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND}:
                raise
            return await self._past(step, previous, error)
        reply.read(Made)  # what is no answer of the server's has not given them to the run
        return Created(previous, reply.request_id, headers=reply.headers)

    async def _past(self, step: Step, previous: str, refusal: ProviderError) -> Created:
        """Go on where a run does not wait for these outputs: it has them already, or has ended without them."""
        run = await self._run_at(previous, inside=True)
        status, ours = run.status if run else "gone", {one.call_id for one in step.answers}
        if status == "requires_action" and run and ours & {call.id for call in run.calls}:
            raise refusal
        if status == "cancelling":
            raise ProviderError("conversation_locked", refusal.message, transient=True, status=refusal.status)
        if status not in {"expired", "cancelled", "gone"}:
            return Created(previous)
        found = await self._find(step, inside=True)
        _log.info("run_replaced", provider_id=previous, status=status, found=found is not None)
        return found or await self._begin(step, [requests.told(step)], after=paths.split(previous)[1])

    async def adopt(self, step: Step, after: str) -> Created | None:
        """Find the run of a step by its metadata."""
        return await self._find(step)

    async def _find(self, step: Step, *, inside: bool = False) -> Created | None:
        async for run in listed(self._http, paths.runs(step.conversation), Page[RunBody], inside=inside):
            if _is_of(run, step):
                return _created(step.conversation, run.id)
            if run.says("run_id") not in {None, step.run_id}:
                return None  # older than all of ours
        return None

    async def tail(self, conversation: str) -> Tail:
        """Return that nothing is open: a call waits with its run, and blocks nothing when that has ended."""
        return Tail("", ())

    # ── look ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def look(self, provider_id: str) -> Look:
        """Retrieve the run and say what it means; one that has answered also its messages."""
        reply = await self._http.send("GET", paths.run(provider_id))
        run = reply.read(RunBody)
        if run.status in _GOING_ON:
            return Pending(queued=run.status == "queued", look_after=meaning.look_after(reply.headers))
        if run.status == "requires_action":
            return NeedsTools(meaning.asked(run), Usage(), None)  # what it used is told for the whole run, at its end
        return kept_out(await self._ended(paths.split(provider_id)[0], run), self._http.key)

    async def _ended(self, thread: str, run: RunBody) -> Ended:
        """Say what a run has come to, with those that it went on from: their tokens and calls are the step's."""
        course = await self._course(thread, run)
        usage = reduce(meaning.total, map(self._counted, course))  # unknown where one of them does not say
        hosted = await self._steps.hosted(thread, [one for one in reversed(course) if one is not None])
        if run.status in {"completed", "incomplete"}:
            return replace(await self._answer(thread, run, usage), hosted=hosted)
        return replace(meaning.failure(run, usage), hosted=hosted)

    async def _course(self, thread: str, run: RunBody) -> list[RunBody | None]:
        """Return a run and those that it went on from, newest first; None for one that is gone."""
        course: list[RunBody | None] = [run]
        seen = {run.id}
        while (newest := course[-1]) and (before := str(newest.says("after") or "")) and before not in seen:
            seen.add(before)
            course.append(await self._run_at(paths.provider_id(thread, before)))
        return course

    def _counted(self, run: RunBody | None) -> Usage:
        if run is None or run.usage is None:
            return Usage()
        tokens = run.usage.prompt_tokens, run.usage.completion_tokens
        return Usage(*tokens, self._prices.cost(run.model or "", *tokens))

    async def _run_at(self, provider_id: str, *, inside: bool = False) -> RunBody | None:
        """Return a run, None where its thread does not have it any more."""
        try:
            return (await self._http.send("GET", paths.run(provider_id), inside=inside)).read(RunBody)
        except ProviderError as error:
            if error.status != HTTPStatus.NOT_FOUND or error.code == CONVERSATION_GONE:
                raise
            return None

    async def _answer(self, thread: str, run: RunBody, usage: Usage) -> Done:
        path = f"{paths.thread(thread)}/messages?run_id={quote(run.id, safe='')}&order=asc"
        there = [one async for one in listed(self._http, path, Page[MessageBody])]
        said = [one for one in there if one.role == "assistant" and one.run_id == run.id]
        last_item, stopped_by = said[-1].id if said else None, meaning.stopped_by(run)
        return Done(meaning.text(said), usage, last_item, stopped_by, run.completed_at, parts=meaning.parts(said))

    # ── end ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def cancel(self, provider_id: str) -> None:
        """Cancel the run; one that has ended already is left as it is."""
        await self._cancel(provider_id)

    async def _cancel(self, provider_id: str, *, inside: bool = False) -> None:
        try:
            await self._http.send("POST", f"{paths.run(provider_id)}/cancel", inside=inside)
        except ProviderError as error:
            if error.transient:
                raise

    async def delete_conversation(self, conversation: str) -> None:
        """Delete the thread with its messages; one that the server does not know is as good as deleted."""
        try:
            await self._http.send("DELETE", paths.thread(conversation))
        except ProviderError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise


def _created(thread: str, run: str, reply: Reply | None = None) -> Created:
    ident = paths.provider_id(thread, run)
    return Created(ident, reply.request_id, headers=reply.headers) if reply else Created(ident)


def _is_of(run: RunBody, step: Step) -> bool:
    return all(run.says(key) == value for key, value in step.identity.items())


def _is_busy(error: ProviderError) -> bool:
    # "Thread … already has an active run …", "Can't add messages to … while a run … is active."
    said = error.message.lower()
    return error.status == HTTPStatus.BAD_REQUEST and ("has an active run" in said or "while a run" in said)
