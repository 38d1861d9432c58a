"""The command `runwright`.

    main                  the commands by name; the module of one is imported when it is to be run
    running               what it takes to run one, and how every error ends: one line, an exit code
    run_commands          submit, show, list
    watch_commands        watch;  following: a run shown as it goes on
    change_commands       cancel, retry: by ids or by choice
    batch_commands        batch submit, list, show, watch, budget, cancel, retry, export
    assistant_commands    assistants apply, list, show
    backend_commands      backends
    tool_commands         tools list, call, in-doubt, answer
    approval_commands     approvals list, approve, deny
    schema_commands       migrate
    care_commands         doctor, cleanup
    status_commands       status, pause, resume
    local, stack          up, demo, and the processes they start;  interrupts: the signals that end them
    output                what a terminal and what a program gets: results on stdout, notes on stderr
    run_tables, tables    how runs, batches and the whole look;  progress: watching a batch
    timeline              what happened to a run, in words;  waiting: what somebody who waits for one should know
    questions             what people are asked, and who answers
    errands, bar          a child that asks the provider; how far a long command has come

A module of commands has an `app`; main lists its commands. Exit codes: 0 done; 1 the run did not
complete, the tool failed, or doctor found something wrong; 2 wrong usage or settings.
"""
