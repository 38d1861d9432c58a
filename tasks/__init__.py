"""The doors: what producers call and what travels on the wire.

runs         submit, wait, cancel, retry from Python
batches      documents in, results out
celery_tasks the Celery tasks: runs.submit, runs.dispatch, maintenance.*
cli/         the command `runwright`
"""
