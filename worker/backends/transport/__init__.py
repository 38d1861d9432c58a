"""Requests to one provider's server, whatever protocol is spoken there.

connections one server's: aiohttp, with the openai client's configuration
bodies      how answers are read, and what those of several protocols hold
sse         the events of a stream
faults      what a failed request means: transient, permanent, unknown
"""
