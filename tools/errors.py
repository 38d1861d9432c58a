"""The errors of a tool that cannot be offered and of a file that cannot be read."""


class ToolError(Exception):
    """A tool or tool module is wrong in a way its author must mend; the message is one line for people."""


class Unreadable(Exception):
    """A file has no text to give; the message is the reason."""
