"""What a tool call knows about the run that asked for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ToolContext:
    """The run around one tool call; a parameter annotated with it is injected and hidden from the model."""

    run_id: str
    thread_id: str
    call_id: str
    attempt: int
    deadline: datetime
    """When the call must have ended, with a time zone."""
    metadata: Mapping[str, object]
    data: Path
    """The folder that the shipped tools may read."""

    def remaining(self) -> float:
        """Return the seconds until the deadline, 0 when it has passed."""
        return max((self.deadline - datetime.now(UTC)).total_seconds(), 0)
