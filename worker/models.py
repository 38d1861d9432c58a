"""The tables, all prefixed runwright_: what is durable about a run stands here and nowhere else."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, ForeignKey, Index, Integer, MetaData, SmallInteger, String, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from worker.conditions import BEGINS, CLAIMABLE, GOES_ON, IN_PROGRESS, OWNED, TURN, UNDECIDED, UNENDED, WAITING
from worker.dbtime import UtcDateTime, from_now

_JSON = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
_Id = String(200)
# SQLite numbers rows by itself only in a column declared INTEGER.
_Serial = BigInteger().with_variant(Integer(), "sqlite")
# Of USD, in what is summed up: floats add noise behind them.
COST_DIGITS = 12


class Base(DeclarativeBase):
    """Names every constraint, so that migrations can name them too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: UtcDateTime,
        dict[str, Any]: _JSON,
        list[Any]: _JSON,
    }


class Assistant(Base):
    """One version of a named configuration; a changed one is a new row, so that a run keeps what it ran with."""

    __tablename__ = "runwright_assistants"
    __table_args__ = (Index("uq_runwright_assistants_name_version", "name", "version", unique=True),)

    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    version: Mapped[int]
    config: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=from_now())


class Cap(Base):
    """At most so many runs of this assistant are in progress at once; its row is what claims of it lock."""

    __tablename__ = "runwright_caps"

    assistant: Mapped[str] = mapped_column(String(100), primary_key=True)
    max_active: Mapped[int]


class Thread(Base):
    """One conversation; next_seq numbers its runs, and its row is what a change of turn locks."""

    __tablename__ = "runwright_threads"

    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    next_seq: Mapped[int] = mapped_column(default=0)
    provider_id: Mapped[str | None] = mapped_column(_Id)
    last_item: Mapped[str | None] = mapped_column(_Id)
    created_at: Mapped[datetime] = mapped_column(default=from_now())


class Conversation(Base):
    """One conversation that we created: what cleanup may delete at its provider, and nothing else."""

    __tablename__ = "runwright_conversations"
    __table_args__ = (Index("ix_runwright_conversations_thread_id", "thread_id"),)

    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    thread_id: Mapped[str] = mapped_column(ForeignKey(Thread.id))
    place: Mapped[str] = mapped_column(String(500))  # a Place of worker.backends.places
    created_at: Mapped[datetime] = mapped_column(default=from_now())
    left_at: Mapped[datetime | None]  # the thread goes on without it
    deleted_at: Mapped[datetime | None]


class Item(Base):
    """One entry of a conversation that its provider does not keep, in the words of its protocol."""

    __tablename__ = "runwright_items"
    __table_args__ = (Index("ix_runwright_items_conversation_id", "conversation_id", "id"),)

    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    conversation_id: Mapped[str] = mapped_column(ForeignKey(Conversation.id))
    item: Mapped[dict[str, Any]]


class Batch(Base):
    """Many runs with one purpose."""

    __tablename__ = "runwright_batches"

    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    assistant: Mapped[str] = mapped_column(String(100))
    prompt: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=from_now())
    # What to send when all of it has ended; a batch that is still being submitted has not.
    on_end: Mapped[dict[str, Any] | None] = mapped_column(_JSON)
    sealed_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    # No further run of it is begun when its known cost has reached the budget.
    budget_usd: Mapped[float | None]
    spent_usd: Mapped[float] = mapped_column(default=0.0)


class Spending(Base):
    """What a response for a batch with a budget cost: rows of their own, so that no two runs wait for one counter."""

    __tablename__ = "runwright_spendings"

    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey(Batch.id))
    cost_usd: Mapped[float]


class Run(Base):
    """One asking of an assistant on a thread: the durable row everything is about.

    status is for people; turn, owner, fence and due_at decide. step counts the provider responses that are settled.
    """

    __tablename__ = "runwright_runs"

    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    thread_id: Mapped[str] = mapped_column(ForeignKey(Thread.id))
    seq: Mapped[int]
    assistant_id: Mapped[str] = mapped_column(ForeignKey(Assistant.id))
    batch_id: Mapped[str | None] = mapped_column(ForeignKey(Batch.id))
    queue: Mapped[str] = mapped_column(String(100))
    priority: Mapped[int] = mapped_column(SmallInteger)
    status: Mapped[str] = mapped_column(String(20))
    input: Mapped[list[Any]]
    idempotency_key: Mapped[str | None] = mapped_column(_Id)
    input_hash: Mapped[str] = mapped_column(String(64))
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata")
    # Who is told of the end, through the outbox: Celery's result backend, and a task of the producer's choice.
    store_result: Mapped[bool] = mapped_column(default=False)
    on_end: Mapped[dict[str, Any] | None] = mapped_column(_JSON)

    turn: Mapped[bool]
    owner: Mapped[str | None] = mapped_column(_Id)
    fence: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime | None]
    available_at: Mapped[datetime]

    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    step: Mapped[int] = mapped_column(default=0)
    timeout: Mapped[float]
    deadline_at: Mapped[datetime | None]
    # What was left of its time when it was last let go to wait, for a person's answer or its next attempt: that wait,
    # and what comes until the attempt's first create, is not the run's.
    seconds_left: Mapped[float | None]
    cancel_requested_at: Mapped[datetime | None]

    created_at: Mapped[datetime] = mapped_column(default=from_now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    output_text: Mapped[str | None] = mapped_column(Text)
    error_code: Mapped[str | None] = mapped_column(String(100))
    error_message: Mapped[str | None] = mapped_column(Text)
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    cost_usd: Mapped[float | None]


def _partial(name: str, where: Any, *columns: Any, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, postgresql_where=where, sqlite_where=where)


_partial("uq_runwright_runs_turn", TURN, Run.thread_id, unique=True)
Index("uq_runwright_runs_thread_id_seq", Run.thread_id, Run.seq, unique=True)
Index("uq_runwright_runs_idempotency_key", Run.idempotency_key, unique=True)
# The queue leads: a backlog that nobody serves must not be stepped over at every claim of another queue.
_partial("ix_runwright_runs_claimable", CLAIMABLE, Run.queue, Run.priority, Run.due_at)
# What is held back in one piece is stepped over in one step: see worker/store/groups.py.
_partial("ix_runwright_runs_begins", BEGINS, Run.queue, Run.priority, Run.assistant_id, Run.batch_id, Run.due_at)
_partial("ix_runwright_runs_goes_on", GOES_ON, Run.queue, Run.priority, Run.due_at)
_partial("ix_runwright_runs_in_progress", IN_PROGRESS, Run.assistant_id)
_partial("ix_runwright_runs_waiting", WAITING, Run.thread_id, Run.seq)
_partial("ix_runwright_runs_owner", OWNED, Run.owner)
_partial("ix_runwright_runs_unended", UNENDED, Run.batch_id)
Index("ix_runwright_runs_batch_id", Run.batch_id)
Index("ix_runwright_runs_created_at", Run.created_at)


class Attempt(Base):
    """One try at a run: the intent before each create, and the chain of provider ids that it made."""

    __tablename__ = "runwright_attempts"

    run_id: Mapped[str] = mapped_column(ForeignKey(Run.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str] = mapped_column(_Id)
    started_at: Mapped[datetime] = mapped_column(default=from_now())
    ended_at: Mapped[datetime | None]
    # The step that is about to be created and the conversation's last item before it: what a create whose answer was
    # lost left behind stands after that item.
    intent_at: Mapped[datetime | None]
    intent_step: Mapped[int | None]
    intent_after: Mapped[str | None] = mapped_column(_Id)
    looked_at: Mapped[datetime | None]  # when a run was let go until its next look: behind intent_at it is of this step
    # The provider's run in flight; moved into provider_ids for good as soon as it is known.
    provider_id: Mapped[str | None] = mapped_column(_Id)
    provider_ids: Mapped[list[Any]] = mapped_column(default=list)
    unknown: Mapped[bool] = mapped_column(Boolean, default=False)
    # Steps whose id was never learnt and whose result was found in the conversation; their usage is unknown.
    adopted: Mapped[int] = mapped_column(default=0)
    reissued: Mapped[int] = mapped_column(default=0)  # steps asked for again: no provider went on with them
    crashes: Mapped[int] = mapped_column(default=0)
    error_code: Mapped[str | None] = mapped_column(String(100))
    error_message: Mapped[str | None] = mapped_column(Text)


class ToolCall(Base):
    """One tool the model called: the ledger that keeps a finished call from running again."""

    __tablename__ = "runwright_tool_calls"

    run_id: Mapped[str] = mapped_column(ForeignKey(Run.id), primary_key=True)
    call_id: Mapped[str] = mapped_column(_Id, primary_key=True)
    step: Mapped[int]
    position: Mapped[int]
    attempt: Mapped[int]
    name: Mapped[str] = mapped_column(String(200))
    arguments: Mapped[str] = mapped_column(Text)
    # What calling it again does: once, idempotent, read; idempotent also where a person took the repetition on. hosted
    # is a call of the provider's own, which is never ours to make.
    effect: Mapped[str] = mapped_column(String(20), default="once")
    status: Mapped[str] = mapped_column(String(20))
    output: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(String(50))
    starts: Mapped[int] = mapped_column(default=0)
    # The provider has the output for good; until then it refuses everything else on the conversation.
    closed: Mapped[bool] = mapped_column(default=False)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    # What a person is asked before the run goes on: approval, or what an interrupted call has come to (in_doubt).
    question: Mapped[str | None] = mapped_column(String(20))
    decide_by: Mapped[datetime | None]
    decision: Mapped[str | None] = mapped_column(String(20))
    decided_by: Mapped[str | None] = mapped_column(_Id)
    decided_at: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(Text)


_partial("ix_runwright_tool_calls_undecided", UNDECIDED, ToolCall.decide_by)


class Message(Base):
    """One entry of a thread, written when its run ends."""

    __tablename__ = "runwright_messages"
    __table_args__ = (Index("ix_runwright_messages_thread_id", "thread_id", "id"),)

    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    thread_id: Mapped[str] = mapped_column(ForeignKey(Thread.id))
    run_id: Mapped[str] = mapped_column(ForeignKey(Run.id))
    role: Mapped[str] = mapped_column(String(20))
    content: Mapped[list[Any]]
    created_at: Mapped[datetime] = mapped_column(default=from_now())


class Document(Base):
    """One input of a batch; without a run where it could not be read."""

    __tablename__ = "runwright_documents"

    batch_id: Mapped[str] = mapped_column(ForeignKey(Batch.id), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    characters: Mapped[int | None]
    run_id: Mapped[str | None] = mapped_column(ForeignKey(Run.id))
    error: Mapped[str | None] = mapped_column(Text)


class Worker(Base):
    """One boot of one worker process: its lease is what keeps all its runs."""

    __tablename__ = "runwright_workers"

    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    node: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int]
    queues: Mapped[list[Any]]
    max_in_flight: Mapped[int]
    http: Mapped[str | None] = mapped_column(String(200))  # where it answers /healthz and /metrics
    started_at: Mapped[datetime] = mapped_column(default=from_now())
    lease_until: Mapped[datetime]


class EventRow(Base):
    """What happened to a run, in order, written with the change itself."""

    __tablename__ = "runwright_events"
    __table_args__ = (Index("ix_runwright_events_run_id", "run_id", "id"),)

    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    run_id: Mapped[str] = mapped_column(ForeignKey(Run.id))
    attempt: Mapped[int]
    name: Mapped[str] = mapped_column(String(50))
    data: Mapped[dict[str, Any]]
    worker: Mapped[str | None] = mapped_column(_Id)
    at: Mapped[datetime] = mapped_column(default=from_now())


class Outgoing(Base):
    """The outbox: what is told outside once the transaction that wrote it is committed, at least once."""

    __tablename__ = "runwright_outbox"
    # A number that comes again could be deleted by a slow sender of the letter that had it before.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 - SQLAlchemy reads it from the class

    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    # result: to Celery's result backend; run, batch: the task that its producer asked for.
    kind: Mapped[str] = mapped_column(String(20))
    subject: Mapped[str] = mapped_column(_Id)
    payload: Mapped[dict[str, Any]]
    # A worker is sending it; another one tries again afterwards.
    taken_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=from_now())


class Pause(Base):
    """Queued runs of this queue, assistant or batch are not begun until somebody resumes it or raises its budget."""

    __tablename__ = "runwright_pauses"

    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(_Id, primary_key=True)
    reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=from_now())
