"""Everything a process needs to carry a run to its end.

    lifecycle   the statuses and the moves between them
    models      the tables;  conditions: of their indexes;  dbtime: their clock
    store/      every query, the only writer;  migrations/: Alembic
    backends/   the provider protocols;  response: what is told there and back, in our words
    runner      one run's life, top to bottom;  pace: how it waits
    chain       its steps at the provider;  flight: one that is under way;  conversation: what they go on
    calls       its tool calls
    truncation  what is left out of a conversation that we keep;  tokens: a guess at how many
    outage      when the provider is away
    looks       when to look at a step;  lifetable: how long they take
    limits/     the provider's limits over the whole fleet
    sharing     leaves other workers their part of a burst
    engine      thousands of runners;  lease: keeps this worker alive;  reaping: runs that nobody drives
    pool        the way to the store, commits together
    consumer    Celery's, which a lost broker does not end
    app         the Celery application;  wire: names on the wire;  doorbell: "there is something to claim"
    envelope    how a ring lies on Redis
    control     inspect, revoke;  flower: rows in Flower;  outlet: the thread of what goes out over Redis
    delivery    sends the outbox: AsyncResult, hooks;  notice: wakes who waits for an end
    live        what runs say as they go on, over Redis;  watching: a run followed;  telling, said: what of it is told
    events      the one seam of observation;  telemetry: logs;  metrics: counts for Prometheus
    vitals      whether this worker is well;  probe: its HTTP port
    service     composition root of a worker;  parts: what its runners share;  producer: what submitting needs
    settings    the environment, once;  kinds: its values, checked;  refusals: what is wrong with it;  urls
    errors      those that some `except` names;  retries: how long to wait
    assistants  the file of assistants;  lines: where in it what stands;  hosted: of tools of the provider's own
    prices      what tokens cost;  windows: how long a step may wait at the provider, for how much less
    embedded    a Redis-protocol server beside the default database;  maintenance: what the scheduler has done
    crashpoints where a test can kill the process
    doctor      proves what must hold;  errands, messenger: what care asks of the provider

The way of a run: tasks.runs.submit → store.submitting → doorbell.ring → engine → runner.drive → chain → backends
→ calls → tools → store.settling → events.emit.
"""
