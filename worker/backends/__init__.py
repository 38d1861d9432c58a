"""The provider protocols, one file each, behind the one in base.

base       what a backend must do and what it may answer: Pending | NeedsTools | Done | Failed
responses  OpenAI's Responses in background mode, one conversation per thread
bodies     what is read of the provider's answers, checked
faults     what an exception of the openai client means: transient, permanent, unknown
"""
