"""Tools that write each of their executions to a file of their own: what really happened, whatever the tables say."""

import os
import time

from tools.context import ToolContext
from tools.registry import tool

EXECUTIONS = "executions"


def _execute(name: str, context: ToolContext) -> str:
    """Append one line, whole: the kernel moves to the end and writes in one step."""
    line = f"{name} {context.run_id} {context.call_id}\n".encode()
    file = os.open(context.data / EXECUTIONS, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    try:
        os.write(file, line)
    finally:
        os.close(file)
    time.sleep(0.05)  # a tool takes a moment, so that a kill can come while it runs
    return f"{name} done"


@tool(effect="read")
def look_up(context: ToolContext) -> str:
    """Look something up."""
    return _execute("look_up", context)


@tool(effect="idempotent")
def put(context: ToolContext) -> str:
    """Put something where it may already be."""
    return _execute("put", context)


@tool(effect="once")
def book(context: ToolContext) -> str:
    """Book something, which must not happen twice."""
    return _execute("book", context)


@tool(effect="once", approval=True)
def pay(context: ToolContext) -> str:
    """Pay something, once a person agrees."""
    return _execute("pay", context)


@tool(effect="once")
def dawdle(seconds: float, context: ToolContext) -> str:
    """Book something, slowly."""
    done = _execute("dawdle", context)
    time.sleep(seconds)
    return done


TOOLS = ["look_up", "put", "book", "pay", "dawdle"]
ONCE = {"book", "pay", "dawdle"}
