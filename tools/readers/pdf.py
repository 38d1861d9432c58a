"""The text of a PDF."""

import logging
from io import BytesIO

from pypdf import PdfReader
from pypdf.errors import DependencyError

from tools.errors import Unreadable

logging.getLogger("pypdf").setLevel(logging.ERROR)  # its warnings quote the document


def text(data: bytes) -> str:
    """Return the text of all pages; Unreadable says why there is none."""
    try:
        reader = PdfReader(BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("the PDF is protected by a password")
        found = "\n\n".join(page.extract_text() for page in reader.pages)
    except Unreadable:
        raise
    except DependencyError as error:
        raise Unreadable("the PDF is encrypted in a way that cannot be read here") from error
    except Exception as error:  # a damaged file raises anything from KeyError to RecursionError
        raise Unreadable(f"the PDF is damaged ({type(error).__name__})") from error
    if not found.strip():
        raise Unreadable("the PDF holds no text; it may be a scan")
    return found
