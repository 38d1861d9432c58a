"""The command `runwright`.

    main                  the command tree, and how every error ends: one line, an exit code
    run_commands          submit, show, list, cancel, retry
    batch_commands        batch submit, list, show, watch, cancel, retry, export
    assistant_commands    assistants apply, list, show
    tool_commands         tools list, call
    schema_commands       migrate
    local, stack          up, demo, and the processes they start
    output                what a terminal and what a program gets: results on stdout, notes on stderr
    tables, progress      how runs and batches look

A module of commands has an `app`; main names it in one line. Exit codes: 0 done, 1 the run did not complete, 2 wrong
usage or settings.
"""
