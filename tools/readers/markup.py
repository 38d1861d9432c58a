"""The text of an HTML page, as a person sees it."""

import re

from bs4 import BeautifulSoup
from bs4.element import NavigableString

from tools.readers import plain

_INVISIBLE = ["script", "style", "template", "noscript"]
_LINES = ["br", "caption", "dd", "dt", "li", "tr"]
_BLOCKS = [
    "address", "article", "aside", "blockquote", "div", "dl", "fieldset", "figure", "footer", "form", "h1", "h2", "h3",
    "h4", "h5", "h6", "header", "hr", "main", "nav", "ol", "p", "pre", "section", "table", "title", "ul",
]  # fmt: skip  # one tag a line says nothing more


def text(data: bytes) -> str:
    """Return lines by blocks, cells apart, nothing invisible."""
    if b"<" not in data:
        return plain.text(data)
    soup = BeautifulSoup(data, "html.parser")
    for element in soup.find_all(_INVISIBLE):
        element.decompose()
    for string in soup.find_all(string=True):
        if type(string) is NavigableString and string.find_parent("pre") is None:  # comments are subclasses
            string.replace_with(re.sub(r"\s+", " ", string))
    for element in soup.find_all(_BLOCKS):
        element.insert_before("\n")
    for element in soup.find_all(_BLOCKS + _LINES):
        element.insert_after("\n")
    for element in soup.find_all(["td", "th"]):
        element.append(" ")
    lines = (re.sub(r"[ \t]+", " ", line).strip() for line in soup.get_text().splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
