"""The doors: what producers call and what travels on the wire.

runs         submit, wait, cancel, retry from Python
batches      documents in, results out;  bulk: cancel or retry many runs
hooks        what is sent when a run or a batch has ended;  checks: what can be stored
approvals    what people are asked, and their answers
celery_tasks the Celery tasks: runs.submit, runs.dispatch, maintenance.*
cli/         the command `runwright`
"""
