"""An arithmetic expression for what was asked, from the figures of a text."""

import re
from decimal import Decimal

from simulator.reading import key_lines, number, numbers, word_list

_LITERAL = re.compile(r"(?<![\w.,-])[\d(][\d\s.,+\-*/()×^%]*[\d)](?![\w-])")
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}/\d{1,2}/\d{2,4}")
_OPERATION = re.compile(r"\d\)*\s*[-+*/×^]\s*\(*-?\d")
_SHARE_OF = re.compile(r"(?<![\d.,])(\d[\d.,]{0,40})\s*(?:%|percent)\s+of\s+(\d[\d.,]{0,40}\d|\d)")
_TAX = re.compile(r"\b(?:vat|tax|mwst|ust)\b", re.IGNORECASE)
_RATE = re.compile(
    r"(?:\b(?:vat|tax|mwst|ust)\b[^\n%\d]{0,30}(\d{1,9}(?:[.,]\d{1,9})?)\s*%|(\d{1,9}(?:[.,]\d{1,9})?)\s*%\s*(?:vat|tax))",
    re.IGNORECASE,
)
_ALL_OF_IT = re.compile(r"\b(?:total|gross|sum|with|including|incl|plus)\b", re.IGNORECASE)
_ADD_UP = re.compile(r"\b(?:sum|add up|total of|add together)\b", re.IGNORECASE)
_CURRENCY = re.compile(r"\b(EUR|USD|GBP|CHF|SEK|NOK|DKK|PLN)\b|([€$£])")


def expression(clause: str, document: str) -> str | None:
    """Return what is to be computed, or None where the text does not give the figures."""
    return _literal(clause) or _share(clause) or _taxed(clause, document) or _added_up(clause, document)


def currency(text: str) -> str | None:
    """Return the first currency that a text names."""
    found = _CURRENCY.search(text)
    return found[0] if found else None


def _literal(clause: str) -> str | None:
    for match in _LITERAL.finditer(_DATE.sub(" ", clause)):
        found = match[0].strip()
        if _OPERATION.search(found) and found.count("(") == found.count(")"):
            return re.sub(r"(?<=\d),(?=\d{3}\b)", "", found).replace("×", "*").replace("^", "**")
    return None


def _share(clause: str) -> str | None:
    found = _SHARE_OF.search(clause)
    return f"{number(found[2])} * {number(found[1])} / 100" if found else None


def _taxed(clause: str, document: str) -> str | None:
    if not _TAX.search(clause) and "gross" not in clause.lower():
        return None
    rate, net = _rate(clause) or _rate(document), _net(document)
    if rate is None or net is None:
        return None
    factor = rate / 100 + (1 if _ALL_OF_IT.search(clause) else 0)
    return f"{net} * {factor.normalize():f}"


def _rate(text: str) -> Decimal | None:
    found = _RATE.search(text)
    return number(found[1] or found[2]) if found else None


def _net(document: str) -> Decimal | None:
    """Return the net amount: of the key line that says net, else subtotal, else an amount or total without the tax."""
    lines = [(key.lower(), numbers(value)) for key, value in key_lines(document)]
    for wanted in ("net", "subtotal", "sub-total", "amount", "total"):
        for key, found in lines:
            if wanted in key and found and not _TAX.search(key) and "gross" not in key:
                return found[-1]
    return None


def _added_up(clause: str, document: str) -> str | None:
    if not _ADD_UP.search(clause):
        return None
    here = numbers(clause)
    if len(here) > 1:
        return " + ".join(map(str, here))
    rows = [numbers(line) for line in document.splitlines() if line.lstrip().startswith(("-", "*", "|", "•"))]
    last = [row[-1] for row in rows if row and "calculate" not in word_list(str(row))]
    return " + ".join(map(str, last)) if len(last) > 1 else None
