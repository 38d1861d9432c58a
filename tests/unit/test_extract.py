"""Files to text: each kind, and each way of having none."""

import logging
import os
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter

from tools.errors import Unreadable
from tools.extract import SUFFIXES, extract_text

PDF = Path(__file__).parents[2] / "samples" / "documents" / "invoice-kestrel-software.pdf"


def extracted(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    path.write_bytes(content)
    return extract_text(path)


def pdf(password: str | None = None, owner: str | None = None, *, blank: bool = False) -> bytes:
    """Make a PDF from the sample's pages, or a blank one, with passwords if wanted."""
    writer = PdfWriter()
    if blank:
        writer.add_blank_page(200, 200)
    else:
        writer.append(PdfReader(PDF))
    if password is not None:
        writer.encrypt(password, owner, algorithm="RC4-128")
    buffer = BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.markdown", "a.csv", "a.tsv", "A.TXT"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_plain_text_in_each_encoding(tmp_path: Path, name: str, encoding: str) -> None:
    """Expected: the same text, with plain line ends, whatever wrote it."""
    assert extracted(tmp_path, name, "Café – 3 €\r\nzwei\rdrei\n".encode(encoding)) == "Café – 3 €\nzwei\ndrei"


def test_html_reads_as_a_person_sees_it(tmp_path: Path) -> None:
    """Expected: lines by blocks, cells apart, inline tags and source line breaks without effect, nothing invisible."""
    page = b"""<!DOCTYPE html><html><head><title>Bill</title><style>p {}</style><script>var x = "hidden"</script></head>
    <body><!-- hidden --><p>Net
       total: <b>1,240.50</b>&nbsp;EUR<br>VAT: 19%</p><table><tr><th>A</th><th>B</th></tr><tr><td>1</td><td>2</td></tr>
    </table><ul><li>one</li><li>two</li></ul><pre>x  y
z</pre><template>hidden</template><noscript>hidden</noscript></body></html>"""

    assert extracted(tmp_path, "a.html", page).split("\n") == [
        "Bill", "", "Net total: 1,240.50 EUR", "VAT: 19%", "", "A B", "1 2", "", "one", "two", "", "x y", "z",
    ]  # fmt: skip  # one line as a page


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1"])
def test_html_in_its_declared_encoding(tmp_path: Path, charset: str) -> None:
    """Expected: the meta element decides."""
    page = f'<html><meta charset="{charset}"><p>Müller</p></html>'.encode(charset)

    assert extracted(tmp_path, "a.htm", page) == "Müller"


def test_html_without_tags_is_text(tmp_path: Path) -> None:
    """Expected: the text, and no warning that it looks like something else."""
    assert extracted(tmp_path, "a.html", b"https://example.org/page") == "https://example.org/page"


def test_deep_html(tmp_path: Path) -> None:
    """Expected: nesting beyond any recursion limit is read."""
    assert extracted(tmp_path, "a.html", b"<div>" * 3_000 + b"deep" + b"</div>" * 3_000) == "deep"


def test_pdf_text(tmp_path: Path) -> None:
    """Expected: the lines of the page; a PDF that opens without a password is read though it is encrypted."""
    assert "Net total: 2,160.00 EUR\nVAT rate: 23%" in extracted(tmp_path, "a.pdf", pdf())
    assert "Net total: 2,160.00 EUR" in extracted(tmp_path, "b.pdf", pdf("", "owner"))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.docx", b"PK", r"kind '\.docx' are not supported; supported are .*\.pdf"),
        ("README", b"text", "no suffix"),
        ("a.txt", b"", "it is empty"),
        ("a.txt", b" \n\t ", "holds no text"),
        ("a.txt", b"ab\0cd", "binary"),
        ("a.txt", bytes(range(1, 32)) * 9, "binary"),
        ("a.txt", b"caf\xe9 \x81", "neither UTF-8 nor Windows-1252"),
        ("a.html", b"<script>only()</script>", "holds no text"),
        ("a.pdf", b"not a pdf at all", "the PDF is damaged"),
        ("a.pdf", PDF.read_bytes()[:800], "the PDF is damaged"),
        ("a.pdf", pdf("secret"), "protected by a password"),
        ("a.pdf", pdf(blank=True), "holds no text; it may be a scan"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    """Expected: the reason in one line, without the path."""
    with pytest.raises(Unreadable, match=reason) as caught:
        extracted(tmp_path, name, content)

    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_large(tmp_path: Path) -> None:
    """Expected: the limit is exact and named."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 1_000)

    assert len(extract_text(path, max_bytes=1_000)) == 1_000
    with pytest.raises(Unreadable, match="larger than 999 bytes"):
        extract_text(path, max_bytes=999)


def test_not_a_file(tmp_path: Path) -> None:
    """Expected: missing files, folders and pipes are refused at once; a pipe would wait for ever."""
    (tmp_path / "folder.txt").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")

    with pytest.raises(Unreadable, match="there is no such file"):
        extract_text(tmp_path / "absent.txt")
    for name in ("folder.txt", "pipe.txt"):
        with pytest.raises(Unreadable, match="it is not a file"):
            extract_text(tmp_path / name)


def test_the_library_does_not_quote_documents_in_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Expected: a damaged PDF leaves no log line: its warnings show the first bytes."""
    with caplog.at_level(logging.WARNING), pytest.raises(Unreadable):
        extracted(tmp_path, "a.pdf", b"secret words" + PDF.read_bytes()[:300])

    assert caplog.text == ""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(suffix=st.sampled_from(sorted(SUFFIXES)), content=st.binary(max_size=300), cut=st.integers(0, 1_800))
def test_any_bytes_give_text_or_a_reason(tmp_path: Path, suffix: str, content: bytes, cut: int) -> None:
    """Expected: text that every database and wire takes, or Unreadable; no other error."""
    head = PDF.read_bytes()[:cut] if suffix == ".pdf" else b""
    try:
        text = extracted(tmp_path, f"a{suffix}", head + content)
    except Unreadable:
        return
    assert text.strip()
    assert "\0" not in text
    text.encode("utf-8")
