"""Assistants v2: one run at the server for all steps of an attempt, which waits there for the outputs of its calls.

backend   what a backend must do, in this protocol
requests  what is sent
paths     where to, and the one id of a step
bodies    what is read of the answers
lists     of those that come page by page
steps     what the server's own tools did
meaning   what they mean for a run of ours
catalogue the assistants at the server that stand for our configurations
"""
