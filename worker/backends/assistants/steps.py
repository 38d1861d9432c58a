"""What the server's own tools did in a run of Assistants v2, which only the list of the run's steps tells."""

from collections import Counter
from collections.abc import Iterator, Sequence
from urllib.parse import quote

import structlog

from worker.backends.assistants import paths
from worker.backends.assistants.bodies import Call, CodeCall, Page, RunBody, SearchCall, StepBody
from worker.backends.assistants.lists import listed
from worker.backends.transport.connections import Http
from worker.errors import ProviderError
from worker.response import CODE, SEARCH, HostedCall

_log = structlog.get_logger(__name__)
_TRIES = 4
# The text that a search has found is told to those who ask for it (listRunSteps, include[]).
_FOUND = f"&include%5B%5D={quote('step_details.tool_calls[*].file_search.results[*].content', safe='')}"
_WENT_WRONG = frozenset({"cancelled", "failed", "expired"})


class Steps:
    """Reads the steps of runs that could call tools of the server's own; of others it asks nothing."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._failures: Counter[str] = Counter()

    async def hosted(self, thread: str, runs: Sequence[RunBody]) -> tuple[HostedCall, ...]:
        """Return the calls of the server's own tools in these runs, in order.

        Raises ProviderError for what may pass, up to some times for a run: the answer, which has been paid for, does
        not wait for ever for a list that does not come.
        """
        found: list[HostedCall] = []
        for run in runs:
            step_id = paths.provider_id(thread, run.id)
            try:
                found += await self._of(step_id, run) if run.hosted else ()
            except ProviderError as error:
                self._failures[step_id] += 1
                if error.transient and self._failures[step_id] < _TRIES:
                    raise
                _log.warning("hosted_calls_unread", provider_id=step_id, code=error.code, error=error.message)
            del self._failures[step_id]
        return tuple(found)

    async def _of(self, step_id: str, run: RunBody) -> list[HostedCall]:
        path = f"{paths.run(step_id)}/steps?order=asc{_FOUND if SEARCH in run.hosted else ''}"
        return list(_calls(run, [one async for one in listed(self._http, path, Page[StepBody])]))


def _calls(run: RunBody, steps: Sequence[StepBody]) -> Iterator[HostedCall]:
    """Say of each call in which step of ours it was made: one ends where the run asks for functions."""
    began = str(run.says("step"))
    number = int(began) if began.isdecimal() else None
    for one in steps:
        more = {"error": one.status if one.status in _WENT_WRONG else None, "step": number}
        for call in one.calls:
            if isinstance(call, CodeCall):
                code = call.code_interpreter
                yield HostedCall.told(call.id, CODE, {"code": code.input}, code.outputs, **more)
            if isinstance(call, SearchCall):
                search = call.file_search
                options = {"ranking_options": search.ranking_options}
                yield HostedCall.told(call.id, SEARCH, options, search.results, **more)
        if number is not None and any(isinstance(call, Call) for call in one.calls):
            number += 1
