"""The provider protocols, one file each, behind the one in base.

places     the protocols and what they can; where an assistant is served
choice     the backend of each place
base       what a backend must do and what it may answer: Pending | NeedsTools | Done | Failed
responses  OpenAI's Responses in background mode, one conversation per thread
foreground what protocols share that keep nothing: a step lives on its connection
chat       their dialect that every compatible server speaks: chat completions
completion a chat completion put together from its chunks, whose form chunks has; its calls by call_parts
stateless  their dialect of Responses without background, store and conversations
survey     what a server is seen to speak
bodies     what is read of the provider's answers, checked
assistants Assistants v2: threads, and runs that wait there for the outputs of their calls
  assistants_requests  what is sent
  assistants_paths     where to
  assistants_bodies    what is read of the answers
  assistants_lists     of those that come page by page
  assistants_meaning   what they mean for a run of ours
  assistants_made      the assistants at the server that stand for our configurations
items      what a conversation tells of a response whose id was never learnt
transport  requests over aiohttp, with the openai client's configuration
streams    a step's server-sent events: the first and the last of them
faults     what a failed request means: transient, permanent, unknown
"""
