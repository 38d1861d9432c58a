"""A stand-in for the provider: OpenAI's protocols on its wire, with faults on demand, all in memory.

They are Responses with Conversations, chat completions and Assistants v2; the same model answers on each.

    __main__       python -m simulator: flags, SIMULATOR_* variables, the server
    app            the ASGI application: the routes of every protocol, and what stands behind them
    gate           what each request passes: key, body, counters, faults; headers on whatever comes out
    responses_api  the routes of Responses, Conversations and models
    chat_api       the route of chat completions; which client run a request belongs to
    threads_api    the routes of assistants, threads and messages
    runs_api       the routes of a thread's runs and their steps
    connections    what happens to a connection: cut without an answer, left without one, answered drop by drop
    control        what tests and benchmarks ask outside the wire: /healthz, /_simulator/*
    provider       conversations and responses, and the rules between them: the lock, poisoned conversations
    conversations  the items of one conversation, in order
    responses      one response: its walk through the statuses, computed from the clock when somebody looks
    validation     what OpenAI refuses in a request, in its words
    kinds          the kinds of values that parameters take
    streams        a response as a stream of events
    chat           messages as items, a response as a completion
    chat_streams   a completion as a stream of chunks
    chat_validation  what OpenAI refuses in a completion
    threads        assistants, threads, messages and runs, and the rules between them: one run at a time
    thread_runs    one run of a thread: its legs of the model, computed from the clock when somebody looks
    thread_steps   what each leg of a run did, as a list of steps
    thread_streams   a leg of a run as a stream of events
    threads_validation  what OpenAI refuses in Assistants v2
    threads_wire   shapes of Assistants v2
    translation    the older protocols' tools, tool choice and formats, as Responses has them
    errors         OpenAI's error bodies
    hosted         calls of the provider's own tools, as items and as steps
    wire           OpenAI's shapes: ids, items, response objects, lists, headers
    faults         latency and faults, by settings; every later fault goes here
    limits         requests and tokens per minute, by key and model
    counters       what happened, for proofs
    model          the model: items in, text or function calls out; a pure function
    prompt         what the model is given, seen as request, documents and tool outputs
    directives     the commands that tests write into a message
    planning       which function serves which part of the request
    arguments      arguments for a function from its JSON schema and the text
    sums           an arithmetic expression for what was asked, from the figures of a text
    reading        facts in a text: key lines, sentences, figures, words
    answering      the final text: extracted facts and quoted tool outputs

The model is deterministic and extracts; it does not think. Tests steer it by directives in the newest user message:

    [[call NAME {json}]]      call this function; all calls up to [[then]] go into one response
    [[hosted NAME {json}]]    before the round's calls, once: the provider's own code_interpreter (code, logs) or
                              file_search (queries, results), if the request offers it
    [[then]]                  a further round begins once the calls before it have their outputs
    [[say TEXT]]              the final answer
    [[latency SECONDS]]       how long each response of this message takes
    [[queued SECONDS]]        how long each response of this message is queued before its latency begins
    [[tokens N]]              the output tokens that its usage reports
    [[fail CODE MESSAGE]]     the response of this round ends failed with this error
    [[incomplete]]            the response of this round ends incomplete, with part of its text
    [[hang]]                  the response of this round stays in_progress until it is cancelled
    [[drop before]]           the connection of this round's create is cut, and nothing is done
    [[drop after]]            the create is carried out, and the connection cut
    [[late SECONDS]]          the connection is cut, and the create carried out so many seconds later
    [[slow SECONDS]]          the body of the create's answer takes so many seconds
    [[stuck]]                 the response of this round stays queued until it is cancelled
    [[cut EVENTS]]            the stream of this round's create is cut after so many events
    [[stall EVENTS]]          the stream of this round's create sends nothing more after so many events

`xN` at the end of fail, incomplete or hang (`[[fail server_error Try again x2]]`) makes it hold only for the first N
creates of the client's run; without a run every create is its own first. Drop, late, slow, stuck, cut and stall happen
once to a round of the client's run, or N times with `xN`; without a run, each time. A create that is refused does not
count. The client's run is known by metadata.run_id; for chat completions, whose metadata is only for what is stored,
by a header X-Client-Request-Id that begins RUN_ID/ATTEMPT/STEP.

What OpenAI's documents leave open is a switch of the settings (`python -m simulator --help`): lock_while_queued,
items_lock, items_on_failure, cancel_completes. `stateless` makes it a server that keeps nothing: foreground responses,
no conversations. An incomplete response always leaves its items in the conversation.

A thread's run is a chain of what directives call responses: its create is a create, and so is each submit of outputs.
Settings of such runs are cancelling_seconds, expire_seconds and poll_after_ms. What hangs or is stuck expires. The
limits on requests and tokens refuse no run: it fails with rate_limit_exceeded.

Every response, stored completion and run says metadata {"simulated": "true"}, unless the client's own 16 pairs leave no
room; a completion says so in its system_fingerprint.
"""
