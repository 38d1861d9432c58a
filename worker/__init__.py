"""Everything a process needs to carry a run to its end.

    lifecycle   the statuses and the moves between them
    models      the tables;  dbtime: their clock;  locks: the turn of a thread
    store/      every query, the only writer;  migrations/: Alembic
    backends/   the provider protocols;  response: what they say, in our words
    runner      one run's life, top to bottom;  calls: its tool calls
    engine      thousands of runners;  lease: keeps this worker alive;  pool: the threads that call the store
    app         the Celery application;  wire: names on the wire;  doorbell: "there is something to claim"
    control     inspect, revoke;  flower: rows in Flower;  results: AsyncResult;  outlet: the thread that tells Celery
    events      the one seam of observation;  telemetry: logs
    service     composition root of a worker;  parts: what its runners share;  producer: what submitting needs
    settings    the environment, once;  urls: its URLs;  errors;  retries: how long to wait
    assistants  the file of assistants;  prices: what tokens cost
    embedded    a Redis-protocol server beside the default database;  maintenance: what the scheduler has done

The way of a run: tasks.runs.submit → store.submitting → doorbell.ring → engine → runner.drive → backends → calls
→ tools → store.settling → events.emit.
"""
