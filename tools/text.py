"""Bytes to text, and text that every later step can carry."""

import codecs

_CONTROLS = dict.fromkeys(set(range(32)) - {ord(c) for c in "\t\n\r\f\x1b"})


def storable(text: str) -> str:
    """Replace what no database or wire takes: NUL characters and lone surrogates."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def decode(data: bytes) -> str:
    """Read text as UTF-8, by its byte order mark, or as Windows-1252; ValueError if it looks binary."""
    text = _decode(data)
    if len(text) - len(text.translate(_CONTROLS)) > len(text) // 100:
        raise ValueError("it looks like binary data, not text")
    return storable(text).replace("\r\n", "\n").replace("\r", "\n")


def _decode(data: bytes) -> str:
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16")
        if b"\0" in data:
            raise ValueError("it looks like binary data, not text")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return _decode_western(data)


def _decode_western(data: bytes) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        raise ValueError("its characters are neither UTF-8 nor Windows-1252") from None
