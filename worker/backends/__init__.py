"""The provider protocols, each behind the one in base.

places      the protocols and what they can; where an assistant is served
choice      the backend of each place
base        what a backend must do and what it may answer: Pending | NeedsTools | Done | Failed
bounds      how many requests are open at once at a server, and who waits for that
responses/  OpenAI's Responses in background mode, one conversation per thread
assistants/ Assistants v2: threads, and runs that wait there for the outputs of their calls
foreground/ protocols that keep nothing: chat completions, Responses without state; a step lives on its connection
transport/  requests to a server, what their answers hold, and what it means where they fail
forms       what chat completions and Assistants v2 write alike
survey      what a server is seen to speak
"""
