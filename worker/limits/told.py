"""What the headers of an answer say of the limits: OpenAI's x-ratelimit-*, which many other servers send too."""

from collections.abc import Mapping

from worker.limits.asking import Left, Limits


def limits(headers: Mapping[str, str]) -> Limits:
    """Return the limits for a minute; 0 where the headers do not say."""
    return Limits(_number(headers, "limit-requests") or 0, _number(headers, "limit-tokens") or 0)


def left(headers: Mapping[str, str]) -> Left:
    """Return what is left of them."""
    return Left(_number(headers, "remaining-requests"), _number(headers, "remaining-tokens"))


def _number(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(f"x-ratelimit-{name}", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 13 else None
