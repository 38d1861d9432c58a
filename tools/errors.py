"""The error of a tool that cannot be offered."""


class ToolError(Exception):
    """A tool or tool module is wrong in a way its author must mend; the message is one line for people."""
