"""Where the threads and runs of Assistants v2 are, and the one id of a step."""

from urllib.parse import quote


def thread(conversation: str) -> str:
    """Return the path of a thread."""
    return f"/threads/{quote(conversation, safe='')}"


def runs(conversation: str) -> str:
    """Return the path of the list of a thread's runs, newest first."""
    return f"{thread(conversation)}/runs?order=desc"


def provider_id(conversation: str, run_id: str) -> str:
    """Return the id of a step, of which a look and a cancel know nothing else."""
    return f"{conversation}/{run_id}"


def split(step_id: str) -> tuple[str, str]:
    """Return the thread and the run that an id of a step names."""
    conversation, _, run_id = step_id.partition("/")
    return conversation, run_id


def run(step_id: str) -> str:
    """Return the path of a step's run."""
    conversation, run_id = split(step_id)
    return f"{thread(conversation)}/runs/{quote(run_id, safe='')}"
