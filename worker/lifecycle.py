"""The nine statuses of a run and the moves between them: pure, and total over every pair of status and event."""

from enum import StrEnum


class Status(StrEnum):
    """Where a run stands, in the words of the Assistants API."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    REQUIRES_ACTION = "requires_action"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    FAILED = "failed"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    EXPIRED = "expired"


TERMINAL = frozenset({Status.CANCELLED, Status.FAILED, Status.COMPLETED, Status.INCOMPLETE, Status.EXPIRED})
ACTIVE = frozenset(Status) - TERMINAL
REOPENABLE = TERMINAL - {Status.COMPLETED}


class Event(StrEnum):
    """What can happen to a run."""

    CLAIM = "claim"
    NEED_TOOLS = "need_tools"
    SUBMIT = "submit"
    RETRY = "retry"
    ASK_CANCEL = "ask_cancel"
    COMPLETE = "complete"
    STOP_SHORT = "stop_short"
    FAIL = "fail"
    EXPIRE = "expire"
    CANCEL = "cancel"
    REOPEN = "reopen"


class InvalidMove(Exception):
    """The event cannot happen to a run in this status."""

    def __init__(self, status: Status, event: Event) -> None:
        super().__init__(f"a run that is {status} cannot {event.replace('_', ' ')}")
        self.status = status
        self.event = event


_ENDS = {
    Event.COMPLETE: Status.COMPLETED,
    Event.STOP_SHORT: Status.INCOMPLETE,
    Event.FAIL: Status.FAILED,
    Event.EXPIRE: Status.EXPIRED,
    Event.CANCEL: Status.CANCELLED,
}
_HELD = (Status.IN_PROGRESS, Status.REQUIRES_ACTION)

MOVES: dict[tuple[Status, Event], Status] = {
    # A claim begins an attempt only from the queue; a run handed over or reaped goes on where it was.
    (Status.QUEUED, Event.CLAIM): Status.IN_PROGRESS,
    (Status.CANCELLING, Event.CLAIM): Status.CANCELLING,
    **{(held, Event.CLAIM): held for held in _HELD},
    (Status.IN_PROGRESS, Event.NEED_TOOLS): Status.REQUIRES_ACTION,
    (Status.REQUIRES_ACTION, Event.SUBMIT): Status.IN_PROGRESS,
    (Status.IN_PROGRESS, Event.SUBMIT): Status.IN_PROGRESS,
    **{(held, Event.RETRY): Status.QUEUED for held in _HELD},
    **{(held, Event.ASK_CANCEL): Status.CANCELLING for held in _HELD},
    (Status.CANCELLING, Event.ASK_CANCEL): Status.CANCELLING,
    **{(held, event): end for held in _HELD for event, end in _ENDS.items()},
    (Status.QUEUED, Event.CANCEL): Status.CANCELLED,
    # A cancel is final here, whatever the provider says afterwards.
    **{(Status.CANCELLING, event): Status.CANCELLED for event in _ENDS},
    **{(ended, Event.REOPEN): Status.QUEUED for ended in REOPENABLE},
}


def after(status: Status, event: Event) -> Status:
    """Return the status that follows; raises InvalidMove where the table has no such move."""
    try:
        return MOVES[status, event]
    except KeyError:
        raise InvalidMove(status, event) from None
