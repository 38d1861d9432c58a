"""Every query, and the only writer of durable state.

    database    connections and transactions           schema      refuse one of another version
    submitting  a run's row enters                     assistants  versions of configurations
    claiming    a worker takes due runs                leases      a worker's life, and what its death leaves
    held        units of held runs, many in a commit   gathered    equal writes of many go together
    progress    intent, provider id, steps             ledger      tool calls
    settling    a run ends, is retried, is let go      many        rows in bulk: one statement for any number
    journal     the events of a run                    outbox      what is told outside, kept until it was sent
    batches     documents and their runs               reading     what people and programs see
    asking      what outsiders may write: cancel, reopen      deciding    questions to people, and their answers
    overview    what stands where                      pausing     what is not begun until it is resumed
    groups      what may begin where something is held back   budgets     what a batch may cost
    sharing     a worker's part of what is due
    auditing    what must hold                         repairing   mends what does not
    items       conversations that we keep
    cleaning    what is old                            choosing    many runs to change
    migrating   Alembic, which nothing else needs      durations   how long steps took
    locks       the turn of a thread

Each write is a function of an open connection, so that a caller's own transaction can hold it, or a unit of a held
run, of which many go into one transaction.
"""
