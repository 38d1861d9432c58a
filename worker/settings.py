"""The settings of every process: one frozen object, and the only reader of the environment."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FilePath,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)

from worker import kinds, refusals, urls
from worker.backends.places import DEFAULT_KEY, KEY_PREFIX, PROTOCOLS
from worker.embedded import recorded_url
from worker.errors import SettingsError

PREFIX = "RUNWRIGHT_"
_DEFAULT_DATABASE = "sqlite:///<RUNWRIGHT_HOME>/runwright.db"
# Celery reads these by itself (celery/app/utils.py) and they win over every configuration.
_CELERYS = {"CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND"}
_CELERYS_ADVICE = "unset it and use REDIS_URL or RUNWRIGHT_RESULT_BACKEND"


class Described(NamedTuple):
    """One setting as the reference shows it."""

    variable: str
    default: str
    description: str


def _protocol(name: str) -> str:
    if name not in PROTOCOLS:
        raise ValueError(f"there are: {', '.join(PROTOCOLS)}")
    return name


def _database_in_home(data: dict[str, Any]) -> str:
    return f"sqlite:///{data['home']}/runwright.db"


class Settings(BaseModel):
    """Everything that can be set, validated; the alias of a field is its environment variable."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, validate_by_name=True
    )

    home: Annotated[Path, AfterValidator(kinds.absolute)] = Field(
        Path(".runwright"), alias="RUNWRIGHT_HOME", description="Folder of the default database and embedded server."
    )
    database_url: Annotated[str, AfterValidator(urls.database_url)] = Field(
        default_factory=_database_in_home, alias="DATABASE_URL", repr=False, description="SQLite file or PostgreSQL."
    )
    redis_url: Annotated[str, AfterValidator(urls.broker_url)] | None = Field(
        None,
        alias="REDIS_URL",
        repr=False,
        description="Redis or Valkey; not set: the embedded server of `runwright up`.",
    )
    openai_api_key: SecretStr | None = Field(None, alias="OPENAI_API_KEY", description="Key for the provider.")
    openai_base_url: Annotated[str, AfterValidator(urls.http_url)] | None = Field(
        None, alias="OPENAI_BASE_URL", repr=False, description="Address of the provider; not set: OpenAI's."
    )
    backend: Annotated[str, AfterValidator(_protocol)] = Field(
        "responses",
        alias="RUNWRIGHT_BACKEND",
        description="Protocol of assistants that name none.",
    )
    keys: Mapping[str, SecretStr] = Field(
        {}, alias=f"{KEY_PREFIX}<NAME>", description="Keys for the servers of assistants that name one."
    )
    max_in_flight: PositiveInt = Field(
        1000, alias="RUNWRIGHT_MAX_IN_FLIGHT", description="Runs that one worker process holds at once."
    )
    claim_chunk: PositiveInt = Field(100, alias="RUNWRIGHT_CLAIM_CHUNK", description="Most runs taken in one claim.")
    lease: float = Field(
        10.0,
        ge=1,
        alias="RUNWRIGHT_LEASE",
        description="Seconds without a heartbeat after which a worker counts as dead.",
    )
    idle_poll: PositiveFloat = Field(
        1.0, alias="RUNWRIGHT_IDLE_POLL", description="Seconds between looks for due runs when no doorbell rings."
    )
    poll_min: PositiveFloat = Field(
        0.05, alias="RUNWRIGHT_POLL_MIN", description="Least seconds between looks at a running response."
    )
    poll_max: PositiveFloat = Field(
        30.0, alias="RUNWRIGHT_POLL_MAX", description="Most seconds between looks at a running response."
    )
    park_after: PositiveFloat = Field(
        60.0,
        alias="RUNWRIGHT_PARK_AFTER",
        description="Seconds until a run's next look from which on no worker holds it meanwhile.",
    )
    request_limit: PositiveInt = Field(
        64,
        alias="RUNWRIGHT_REQUEST_LIMIT",
        description="Short requests to the provider open at once in one worker; streams come on top.",
    )
    stream: Literal["on", "off"] = Field(
        "off", alias="RUNWRIGHT_STREAM", description="Follow steps on streams, unless their assistant says otherwise."
    )
    stream_limit: NonNegativeInt = Field(
        256,
        alias="RUNWRIGHT_STREAM_LIMIT",
        description="Streams open at once in one worker; further steps are polled, those of foreground backends wait.",
    )
    publish: Literal["single", "all", "off"] = Field(
        "single",
        alias="RUNWRIGHT_PUBLISH",
        description="Which of the runs that are streamed `watch` sees live: those of no batch, all, or none.",
    )
    request_timeout: PositiveFloat = Field(
        60.0, alias="RUNWRIGHT_REQUEST_TIMEOUT", description="Seconds that one request to the provider may take."
    )
    requests_per_minute: PositiveInt | None = Field(
        None, alias="RUNWRIGHT_REQUESTS_PER_MINUTE", description="Creates of one model in a minute, over all workers."
    )
    tokens_per_minute: PositiveInt | None = Field(
        None, alias="RUNWRIGHT_TOKENS_PER_MINUTE", description="Tokens of one model in a minute, over all workers."
    )
    runs_at_provider: PositiveInt | None = Field(
        None, alias="RUNWRIGHT_RUNS_AT_PROVIDER", description="Runs of one model at the provider, over all workers."
    )
    retry_min: PositiveFloat = Field(
        1.0, alias="RUNWRIGHT_RETRY_MIN", description="Seconds before the first retry; each further wait doubles."
    )
    retry_max: PositiveFloat = Field(
        300.0, alias="RUNWRIGHT_RETRY_MAX", description="Seconds that a wait between retries never exceeds."
    )
    max_attempts: PositiveInt = Field(
        3, alias="RUNWRIGHT_MAX_ATTEMPTS", description="Attempts at a run whose failure may pass."
    )
    run_timeout: PositiveFloat = Field(
        3600.0,
        alias="RUNWRIGHT_RUN_TIMEOUT",
        description="Seconds that a run may take, waits for limits and people left out, where its submit names none.",
    )
    cancel_timeout: PositiveFloat = Field(
        60.0,
        alias="RUNWRIGHT_CANCEL_TIMEOUT",
        description="Seconds to wait for the provider to stop a cancelled or expired run, or an overdue step.",
    )
    on_unknown: Literal["fail", "create"] = Field(
        "fail",
        alias="RUNWRIGHT_ON_UNKNOWN",
        description="When nobody can tell whether a step was created: fail the run, or create the step again.",
    )
    adoption_wait: PositiveFloat = Field(
        300.0,
        alias="RUNWRIGHT_ADOPTION_WAIT",
        description="Seconds to look for the result of a step whose creation was not confirmed.",
    )
    step_timeout: PositiveFloat | None = Field(
        None,
        alias="RUNWRIGHT_STEP_TIMEOUT",
        description="Seconds that one model step may take before it is cancelled and tried again.",
    )
    queued_timeout: PositiveFloat = Field(
        600.0,
        alias="RUNWRIGHT_QUEUED_TIMEOUT",
        description="Seconds that the provider may leave a step in its queue before it is cancelled and tried again.",
    )
    stall_timeout: PositiveFloat = Field(
        30.0,
        alias="RUNWRIGHT_STALL_TIMEOUT",
        description="Seconds that a foreground step may say nothing once it has begun to answer.",
    )
    in_doubt: Literal["error", "ask"] = Field(
        "error",
        alias="RUNWRIGHT_IN_DOUBT",
        description="An interrupted call of a `once` tool: tell the model, or ask a person first.",
    )
    approval_timeout: PositiveFloat = Field(
        86_400.0,
        alias="RUNWRIGHT_APPROVAL_TIMEOUT",
        description="Seconds that a person has to answer before a call counts as denied, or stays in doubt.",
    )
    foreign_runs: Literal["wait", "cancel"] = Field(
        "wait",
        alias="RUNWRIGHT_FOREIGN_RUNS",
        description="A run on one of our threads that somebody else has begun (Assistants): wait for it, or cancel it.",
    )
    max_steps: PositiveInt = Field(
        20, alias="RUNWRIGHT_MAX_STEPS", description="Model steps in one attempt before the run fails."
    )
    tool_modules: Annotated[tuple[str, ...], BeforeValidator(kinds.modules)] = Field(
        (), alias="RUNWRIGHT_TOOL_MODULES", description="Further modules with tools, separated by commas."
    )
    tool_threads: PositiveInt = Field(
        16, alias="RUNWRIGHT_TOOL_THREADS", description="Plain functions called as tools at once in one worker."
    )
    tool_processes: PositiveInt = Field(
        4, alias="RUNWRIGHT_TOOL_PROCESSES", description="Isolated tools called at once in one worker."
    )
    tool_timeout: PositiveFloat = Field(
        60.0, alias="RUNWRIGHT_TOOL_TIMEOUT", description="Seconds that a tool may take, unless it says otherwise."
    )
    tool_grace: PositiveFloat = Field(
        30.0, alias="RUNWRIGHT_TOOL_GRACE", description="Seconds that running tools get to end when the worker stops."
    )
    tool_data: Path = Field(
        Path("samples"), alias="RUNWRIGHT_TOOL_DATA", description="The only folder that the shipped tools read from."
    )
    database_pool: PositiveInt = Field(
        5,
        alias="RUNWRIGHT_DATABASE_POOL",
        description="Connections of a worker's engine; Celery tasks have as many again, lease and health three more.",
    )
    result_backend: Annotated[str, AfterValidator(kinds.result_backend)] = Field(
        "redis",
        alias="RUNWRIGHT_RESULT_BACKEND",
        repr=False,
        description="Where Celery stores a run's end: redis, none, or a URL.",
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", alias="RUNWRIGHT_LOG_FORMAT", description="auto is console on a terminal, else json."
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(kinds.upper)] = (
        Field("INFO", alias="RUNWRIGHT_LOG_LEVEL", description="Least level that is logged.")
    )
    prices: FilePath | None = Field(
        None, alias="RUNWRIGHT_PRICES", description="Price list to use in place of the shipped prices.yaml."
    )
    events_days: PositiveInt = Field(
        30, alias="RUNWRIGHT_EVENTS_DAYS", description="Days that the events of ended runs are kept."
    )

    conversations_days: PositiveInt = Field(
        90,
        alias="RUNWRIGHT_CONVERSATIONS_DAYS",
        description="Days after a thread's last run until its conversation is deleted, here or at the provider.",
    )
    http: Annotated[str, AfterValidator(kinds.address)] = Field(
        "127.0.0.1:0",
        alias="RUNWRIGHT_HTTP",
        description="HOST:PORT where a worker answers /livez, /healthz and /metrics; port 0 takes a free one; or off.",
    )
    crash_at: str | None = Field(
        None,
        alias="RUNWRIGHT_CRASH_AT",
        description="For tests: POINT or POINT:N, a place in the code where the process kills itself the Nth time.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("poll", "retry"):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if high < low:
                variable = f"{PREFIX}{name.upper()}"
                raise ValueError(f"{variable}_MAX={high}: must not be below {variable}_MIN={low}")
        return self

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Return the settings of a process; an empty variable counts as not set.

        Raises SettingsError for a wrong value and for a RUNWRIGHT_ variable that does not exist.
        """
        known = {str(field.alias) for field in cls.model_fields.values()}
        for name in sorted(_CELERYS & set(environ)):
            raise SettingsError(f"{name}: Celery would take it over our own settings; {_CELERYS_ADVICE}")
        keys = {name: value.strip() for name, value in environ.items() if name.startswith(KEY_PREFIX) and value.strip()}
        for name in sorted(set(environ) - known - set(keys)):
            if name.startswith(PREFIX):
                raise SettingsError(refusals.unknown(name, known, PREFIX))
        values: dict[str, Any] = {name: environ[name].strip() for name in known & set(environ) if environ[name].strip()}
        values |= {f"{KEY_PREFIX}<NAME>": keys} if keys else {}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError("; ".join(refusals.sentences(error, values))) from None

    @classmethod
    def described(cls) -> list[Described]:
        """Return every setting in the order of the fields."""
        return [
            Described(str(field.alias), _shown(field.default, field.default_factory), str(field.description))
            for field in cls.model_fields.values()
        ]

    @property
    def has_key(self) -> bool:
        """Whether there is a key for any provider."""
        return bool(self.openai_api_key or self.keys)

    def key(self, variable: str) -> str | None:
        """Return the provider's key in this variable, None where it is not set."""
        key = self.openai_api_key if variable == DEFAULT_KEY else self.keys.get(variable)
        return key.get_secret_value() if key else None

    def broker_url(self) -> str:
        """Return REDIS_URL, else the embedded server recorded in home, as Celery takes it."""
        url = self.redis_url or recorded_url(self.home)
        if url is None:
            raise SettingsError(
                f"REDIS_URL: not set and no embedded server is running under {self.home}; "
                "start one with `runwright up` or set REDIS_URL"
            )
        return url

    def result_backend_url(self) -> str | None:
        """Return the URL of Celery's result backend, None where results are not stored there."""
        if self.result_backend == "redis":
            return self.broker_url()
        return None if self.result_backend == "none" else self.result_backend


def environment(*, with_settings: bool = True) -> dict[str, str]:
    """Return the environment for a child; without settings nothing in it leads to a key, Redis or database."""
    ours = {str(field.alias) for field in Settings.model_fields.values()}
    return {
        name: value
        for name, value in os.environ.items()
        if with_settings or not (name in ours or name.startswith((PREFIX, "OPENAI_", "SIMULATOR_", "CELERY_")))
    }


def _shown(default: Any, factory: Callable[..., Any] | None) -> str:
    if factory is not None:
        return _DEFAULT_DATABASE
    if default is None or default in ((), {}):
        return "not set"
    return f"{default:g}" if isinstance(default, float) else str(default)
