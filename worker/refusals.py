"""What is wrong with an environment, in words that hold no secret."""

import difflib
import re
from collections.abc import Mapping

from pydantic import ValidationError

_URLS = {"DATABASE_URL", "REDIS_URL", "OPENAI_BASE_URL", "RUNWRIGHT_RESULT_BACKEND"}


def unknown(name: str, known: set[str], prefix: str) -> str:
    """Say that there is no such setting, and which one may be meant."""
    ours = sorted(variable.removeprefix(prefix) for variable in known if variable.startswith(prefix))
    near = difflib.get_close_matches(name.removeprefix(prefix), ours, n=1)
    hint = f"did you mean {prefix}{near[0]}?" if near else "docs/reference.md lists them"
    return f"{name}: there is no such setting; {hint}"


def sentences(error: ValidationError, values: Mapping[str, str]) -> list[str]:
    """Return one sentence for each thing that is wrong, which names its variable and holds no secret."""
    sentences = []
    for detail in error.errors(include_url=False):
        if detail["type"] == "default_factory_not_called":  # follows from another error of the list
            continue
        cause = detail.get("ctx", {}).get("error")
        reason = str(cause) if cause else detail["msg"].removeprefix("Input ")
        variable = str(detail["loc"][0]) if detail["loc"] else None
        sentences.append(f"{variable}{_wrong_value(variable, values)}: {reason}" if variable else reason)
    return sentences


def _wrong_value(variable: str, values: Mapping[str, str]) -> str:
    value = values.get(variable, "")
    if variable in _URLS:
        # What could not be read may hold a password anywhere, so only the scheme is shown.
        scheme = re.match(r"[a-z][a-z0-9+]{0,30}://", value)
        value = f"{scheme[0]}…" if scheme else ""
    return f"={value}" if value else ""
