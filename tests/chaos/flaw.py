"""A bug of ours, for the workers that load this as a tool module: the first look at a response raises."""

import itertools
from typing import Any

from worker.backends.responses.backend import ResponsesBackend

_look = ResponsesBackend.look
_looks = itertools.count()


async def _flawed(self: ResponsesBackend, provider_id: str) -> Any:
    if next(_looks) == 0:
        raise RuntimeError("a bug of ours")
    return await _look(self, provider_id)


ResponsesBackend.look = _flawed  # type: ignore[method-assign]
