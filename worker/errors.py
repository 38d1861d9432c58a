"""The errors that some `except` of ours names."""

from collections.abc import Mapping


class RunwrightError(Exception):
    """Anything Runwright reports to a person in one line."""


class SettingsError(RunwrightError):
    """A setting is wrong or missing; the message is one line that names the variable and never holds a secret."""


class SchemaError(RunwrightError):
    """The database's schema is not the one this version needs; the message names the command to run."""


class UsageError(RunwrightError):
    """A caller asked for something that cannot be; the message says what and why."""


class UnknownRun(UsageError):
    """There is no run with this id."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"no run {run_id!r}; `runwright list` shows the newest")


class KeyReused(UsageError):
    """The idempotency key belongs to a run with other input."""


class ThreadBusy(UsageError):
    """The run was to be refused while its thread is busy, and it is."""


class LostClaim(Exception):
    """The run is no longer ours: another worker has it, or it has ended; let go and write nothing."""


class ProviderError(Exception):
    """A request to the provider failed; `transient` may pass, `unknown` leaves open whether a run was created."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        transient: bool = False,
        unknown: bool = False,
        retry_after: float | None = None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep the provider's code and words, the seconds it asks to wait, and its HTTP status where it answered."""
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.transient = transient
        self.unknown = unknown
        self.retry_after = retry_after
        self.status = status
        self.headers = headers or {}
