"""Facts in a text: words, key lines, sentences, figures, file names."""

import re
from collections import Counter
from decimal import Decimal
from typing import Any

_STOPWORDS = set(
    re.findall(
        r"\w+",
        """
    a an and are as at be by can do does for from get give had has have i if in into is it its me my of on one or our
    please should so that the their them then there these they this those to up us use used using was we were what
    when where which who why will with within you your
""",
    )
)
_CANON = {
    word: group
    for group, members in {
        "lookup": "look lookup find search query check retrieve",
        "calculate": "calculate calculator compute evaluate sum total arithmetic add multiply math",
        "read": "read open load",
        "document": "document doc file text note",
        "table": "table csv spreadsheet sheet",
        "email": "email mail",
        "expression": "expression formula equation calculation",
    }.items()
    for word in members.split()
}
VERBS = (
    "look|lookup|find|search|check|fetch|get|retrieve|compute|calculate|evaluate|add|sum|multiply|convert|read|open|load|"
    "summari[sz]e|tell|list|give|extract|quote|say|reply|answer|explain|describe|name|show|send|write|create|translate|"
    "what|who|when|where|which|how|why"
)
_TABLE_NAME = re.compile(r"\.(csv|tsv|xlsx?)$", re.IGNORECASE)
_FILE_NAME = re.compile(
    r"(?<![\w/.-])\w[\w\-./]{0,200}\.(?:csv|tsv|xlsx?|txt|md|pdf|html?|json|ya?ml|docx?|log)\b", re.IGNORECASE
)
_KEY_LINE = re.compile(r"^[\s\-*|]*([A-Za-z][\w /().#'-]{0,40}?)\**\s*[:|]\s*\**\s*(\S.*?)[\s|*]*$")
_NUMBER = re.compile(r"(?<![\w.,-])-?\d[\d.,]{0,40}(?<![.,])")


def item_text(item: dict[str, Any]) -> str:
    """Return all text of an item: of a message, a function call, or an output."""
    if item["type"] == "function_call":
        return f"{item['name']} {item['arguments']}"
    content = item.get("content") or item.get("output") or ""
    if isinstance(content, str):
        return content
    return "\n\n".join(part["text"] for part in content if isinstance(part.get("text"), str))


def stem(word: str) -> str:
    """Return a word in lower case without the commonest English endings."""
    low = word.lower()
    for ending in ("ing", "ies", "es", "ed", "s"):
        if low.endswith(ending) and len(low) - len(ending) >= 4:
            return low.removesuffix(ending) + ("y" if ending == "ies" else "")
    return low.removesuffix("s") if len(low) == 4 else low


def word_list(text: str) -> list[str]:
    """Return the stems of the telling words, in order; synonyms fall together."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", text)
    plain = [word.lower() for word in re.findall(r"[A-Za-zÀ-ÿ]+", spaced)]
    stems = [(word, stem(word)) for word in plain if word not in _STOPWORDS]
    return [_CANON.get(word) or _CANON.get(short) or short for word, short in stems]


def words(text: str) -> set[str]:
    """Return the telling words of a text; a file name also counts as what its ending says that it is."""
    found = set(word_list(text))
    for name in file_names(text):
        found.add("table" if is_table(name) else "document")
    return found


def file_names(text: str) -> list[str]:
    """Return the file names in a text, in order."""
    return list(dict.fromkeys(_FILE_NAME.findall(text)))


def is_request(text: str) -> bool:
    """Say whether a text asks for something."""
    return "?" in text or re.search(rf"\b(?:{VERBS}|please)\b", text, re.IGNORECASE) is not None


def is_table(name: str) -> bool:
    """Say whether a file name is that of a table."""
    return _TABLE_NAME.search(name) is not None


def key_lines(text: str) -> list[tuple[str, str]]:
    """Return the `Key: value` lines of a text, and its two-column table rows."""
    lines = text.splitlines()
    below = [*lines[1:], ""]
    rows = [line for line, under in zip(lines, below, strict=False) if len(line) < 200 and not _is_rule(under)]
    found = [match for match in map(_KEY_LINE.match, rows) if match]
    pairs = [(match[1].strip(), match[2].strip()) for match in found]
    return [(key, value) for key, value in pairs if "|" not in value and not set(value) <= set("-: ")]


def _is_rule(line: str) -> bool:
    """Say whether a line parts the head of a table from its rows."""
    return "|-" in line and set(line.strip()) <= set("|-: ")


def columns(text: str) -> list[str]:
    """Return the columns of a text that is a CSV table; nothing for any other text."""
    lines = [line for line in text.splitlines() if line.strip()]
    for mark in ";\t,":
        head = lines[0].split(mark) if len(lines) > 2 else []
        if len(head) > 1 and all(line.count(mark) >= len(head) - 1 for line in lines):
            return [name.strip() for name in head]
    return []


def value_of(text: str, name: str) -> str | None:
    """Return the value of the key line whose key says `name`; the closest key wins, then the first."""
    wanted = words(name)
    if not wanted:
        return None
    found = [(len(words(key) - wanted), value) for key, value in key_lines(text) if wanted <= words(key)]
    return min(found, key=lambda one: one[0])[1] if found else None


def title(text: str) -> str | None:
    """Return the heading that a text begins with, if it begins with one."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    plain = first.lstrip("# ").strip("* ")
    is_heading = first.startswith("#") or (0 < len(plain) <= 60 and not plain.endswith((".", "!", "?", ":", ",")))
    return plain if is_heading and not _KEY_LINE.match(first) else None


def sentences(text: str) -> list[str]:
    """Return the sentences of the prose in a text; headings, key lines and table rows are left out."""
    prose = [line.strip() for line in text.splitlines()]
    kept = [line if _is_prose(line) else "" for line in prose]
    flowing = re.sub(r"(?<=\S) *\n(?=\S)", " ", "\n".join(kept))
    parts = re.split(r"(?<=[.!?])\s+|\n+", flowing)
    return [part.strip(" -*") for part in parts if len(part.split()) >= 3]


def _is_prose(line: str) -> bool:
    return not line.startswith(("#", "|", "<", "```", "---")) and not (_KEY_LINE.match(line) and len(line) < 60)


def most_telling(text: str, about: str, count: int) -> list[str]:
    """Return the sentences that speak most of what the text and `about` speak of, in their order."""
    listed = sentences(text)
    frequency = Counter(word_list(text))
    wanted = words(about)

    def weight(at: int) -> float:
        own = words(listed[at])
        common = sum(frequency[word] for word in own) / (len(own) + 3)
        return common + 4.0 * len(own & wanted) - 0.02 * at

    best = sorted(range(len(listed)), key=weight, reverse=True)[:count]
    return [listed[at] for at in sorted(best)]


def numbers(text: str) -> list[Decimal]:
    """Return the numbers of a text, in order; 1,240.50 and 1.240,50 are the same."""
    return [number(found) for found in _NUMBER.findall(text)]


def number(text: str) -> Decimal:
    """Read one number with or without separators of thousands."""
    point, comma = text.rfind("."), text.rfind(",")
    is_decimal_comma = comma > point and text.count(",") == 1 and (point >= 0 or len(text) - comma - 1 != 3)
    if is_decimal_comma:
        return Decimal(text.replace(".", "").replace(",", "."))
    if comma > point >= 0 or text.count(".") > 1:
        return Decimal(text.replace(".", "").replace(",", ""))
    return Decimal(text.replace(",", ""))
