"""Everything a process needs to carry a run to its end.

    app         the Celery application
    service     composition root of a worker;  parts: what its runners share;  producer: what submitting needs
    engine      thousands of runners;  sharing: leaves other workers their part of a burst
    lease       keeps this worker alive;  reaping: runs that nobody drives
    run/        one run's life: runner, chain of steps, tool calls, waiting
    backends/   the provider protocols;  response: what is told there and back, in our words
    limits/     the provider's limits over the whole fleet
    pool        the way to the store, commits together
    store/      every query, the only writer;  migrations/: Alembic
    models      the tables;  conditions: of their indexes;  dbtime: their clock
    lifecycle   the statuses and the moves between them
    broker/     Celery and Redis: doorbell, outbox, notices, control
    observation/  events, logs, metrics, health
    watching/   a run followed as it goes on
    assistants/  their file, checked; prices and completion windows
    truncation  what is left out of a conversation that we keep;  tokens: a guess at how many
    settings    the environment, once;  kinds: its values, checked;  refusals: what is wrong with it;  urls
    errors      those that some `except` names;  retries: how long to wait
    care/       maintenance, doctor
    embedded    a Redis-protocol server beside the default database
    crashpoints where a test can kill the process

The way of a run: tasks.runs.submit → store.submitting → doorbell.ring → engine → runner.drive → chain → backends
→ calls → tools → store.settling → events.emit.
"""
