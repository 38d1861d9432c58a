"""Protocols that keep nothing: one call for each step, read as it comes, the conversation from our database.

backend    what a backend must do, for each dialect
connection what a step lives on, until its answer has ended
chat       the dialect that every compatible server speaks: chat completions
completion a completion put together from its chunks
chunks     the form of those
call_parts its calls, put together from their pieces
stateless  the dialect of Responses without background, store and conversations
"""
