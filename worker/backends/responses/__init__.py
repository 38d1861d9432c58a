"""OpenAI's Responses in background mode: a run is a chain of responses on one conversation.

backend  what a backend must do, in this protocol
requests what is sent of a step
bodies   what is read of the answers
meaning  what a response means for a step
items    what a conversation tells of a response whose id was never learnt
streams  a response's stream, read for its first event and its last
"""
