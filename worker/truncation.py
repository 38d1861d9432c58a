"""What is left out of a conversation that we keep before it is sent; the database keeps all of it.

Items are chat messages or items of Responses: both say who speaks by `role`, and a tool's output by `role` or `type`.
An exchange begins with a user's message and ends before the next one. A turn is a user's message, or what the model
said in one step together with the outputs of the calls that it made; so nothing is ever cut between a call and its
output. What came after the newest user's message is the run's own and always sent.
"""

import asyncio
import copy
import importlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from worker import tokens
from worker.errors import ProviderError
from worker.response import Item

_SECONDS = 30.0  # for a function of the user's own; it holds the place of its step meanwhile


async def truncated(items: Sequence[Item], config: Mapping[str, Any], beside: int = 0) -> list[Item]:
    """Return the items to send as the assistant's `truncation` says; `beside` are tokens that are sent with them.

    Raises ProviderError where a function of the user's own is missing, fails or returns something else than items.
    """
    given = config.get("truncation") or "disabled"
    if isinstance(given, Mapping):
        return last_turns(items, given["last_messages"])
    if given == "disabled":
        return list(items)
    if given == "auto":
        window = config.get("context_window")
        room = None if window is None else window - (config.get("max_output_tokens") or 0) - beside
        return list(items) if room is None else fitting(items, room)
    return await _by_function(given, items, config)


def fitting(items: Sequence[Item], room: int) -> list[Item]:
    """Leave out the oldest exchanges until the rest takes no more than so many tokens, as far as one can guess."""
    exchanges = list(_exchanges(items))
    sizes = [sum(map(tokens.of, exchange)) for exchange in exchanges]
    first = 0
    while first < len(exchanges) - 1 and sum(sizes[first:]) > room:
        first += 1
    return [item for exchange in exchanges[first:] for item in exchange]


def last_turns(items: Sequence[Item], count: int) -> list[Item]:
    """Leave out all but the newest so many turns; more of them where the run's own are more."""
    begins = [at for at in range(len(items)) if _begins_turn(items, at)]
    own = max((at for at, item in enumerate(items) if _is_user(item)), default=0)
    return list(items[min(begins[-count:][0], own) :]) if begins else list(items)


def _exchanges(items: Sequence[Item]) -> Iterator[list[Item]]:
    exchange: list[Item] = []
    for item in items:
        if _is_user(item) and exchange:
            yield exchange
            exchange = []
        exchange.append(item)
    if exchange:
        yield exchange


def _begins_turn(items: Sequence[Item], at: int) -> bool:
    item, before = items[at], items[at - 1] if at else None
    if _is_user(item):
        return True
    # What the model said in one step may be several items: reasoning, a message, calls.
    return not _is_output(item) and (before is None or _is_user(before) or _is_output(before))


def _is_user(item: Item) -> bool:
    return item.get("role") == "user"


def _is_output(item: Item) -> bool:
    return item.get("role") == "tool" or item.get("type") == "function_call_output"


async def _by_function(named: str, items: Sequence[Item], config: Mapping[str, Any]) -> list[Item]:
    """Call the user's function with copies, beside the loop: it may take its time over a long conversation."""
    function = _found(named)
    try:
        async with asyncio.timeout(_SECONDS):
            chosen = await _aside(partial(function, copy.deepcopy(list(items)), copy.deepcopy(dict(config))))
    except TimeoutError:
        raise _refused(named, f"has taken longer than {_SECONDS:g} s") from None
    except Exception as error:  # noqa: BLE001 - it is foreign code: whatever it raises is an error of this run alone
        raise _refused(named, f"raised {type(error).__name__}: {error}") from None
    if not isinstance(chosen, list) or not all(isinstance(item, dict) for item in chosen):
        raise _refused(named, "returned something else than a list of items")
    return chosen


async def _aside(work: Callable[[], Any]) -> Any:
    """Return what it gives, from a thread of its own that no exit of the process waits for, as an executor's does."""
    done: Future[Any] = Future()
    done.set_running_or_notify_cancel()  # nobody can cancel it any more: what comes too late is dropped

    def carry_out() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            done.set_exception(error)

    threading.Thread(target=carry_out, name="truncation", daemon=True).start()
    return await asyncio.wrap_future(done)


def _found(named: str) -> Callable[[list[Item], dict[str, Any]], Any]:
    module, _, name = named.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # noqa: BLE001 - as above, for the whole module
        raise _refused(named, f"cannot be imported: {type(error).__name__}: {error}") from None
    if not callable(function):
        raise _refused(named, "is no function")
    return function  # type: ignore[no-any-return]  # of another's module


def _refused(named: str, told: str) -> ProviderError:
    return ProviderError("truncation", f"the assistant's truncation {named!r} {' '.join(told.split())}"[:2000])
