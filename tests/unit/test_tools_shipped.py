"""The shipped tools on real files, and names that stay inside the data folder."""

import csv
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.arithmetic import calculate
from tools.context import ToolContext
from tools.documents import PART, read_document
from tools.errors import Unreadable
from tools.extract import SUFFIXES, extract_text
from tools.folder import find_file
from tools.tables import lookup_table

SAMPLES = Path(__file__).parents[2] / "samples"
PIECES = ["..", ".", "/", "\\", "\0", "~", "inside.txt", "sub", "out", "link.txt", "secret.txt", "loop", "%2e%2e", "C:"]


def context(data: Path) -> ToolContext:
    return ToolContext("run", "thread", "call", 1, datetime.max.replace(tzinfo=UTC), {}, data)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a document, a deeper one, and links and neighbours that lead outside."""
    folder = tmp_path / "data"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "inside.txt").write_text("the inside")
    (folder / "sub" / "deep" / "deeper.md").write_text("the deeper one")
    (folder / ".env").write_text("KEY=secret")
    (tmp_path / "secret.txt").write_text("the secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "out").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder / "loop")
    return folder


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(name=st.lists(st.sampled_from(PIECES), max_size=7).map("".join) | st.text(max_size=30))
def test_no_name_leads_outside(data: Path, name: str) -> None:
    """Expected: a name gives a file of the folder or a ValueError, whatever it is made of."""
    try:
        path = find_file(data, name, SUFFIXES)
    except ValueError:
        return
    assert path.resolve().is_relative_to(data.resolve())
    assert "secret" not in path.read_text()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd", "not a file name"),
        ("../secret.txt", "begin with a dot"),
        ("sub/../../secret.txt", "begin with a dot"),
        (".env", "begin with a dot"),
        ("inside.txt\0.md", "not a file name"),
        ("..\\secret.txt", "not a file name"),
        ("", "not a file name"),
        ("\ud800", "not a file name"),
        ("ä" * 200 + ".txt", "too long"),
        ("a/" * 30 + "b", "too long"),
        ("link.txt", "leads outside"),
        ("out/secret.txt", "leads outside"),
        ("loop", "cannot be opened"),
        ("sub", "There is no 'sub'"),
        ("absent.txt", r"There are: inside.txt, sub/deep/deeper.md\."),
    ],
)
def test_names_that_are_refused(data: Path, name: str, reason: str) -> None:
    """Expected: the reason, or what is there; never a path of this machine."""
    with pytest.raises(ValueError, match=reason) as caught:
        find_file(data, name, SUFFIXES)

    assert str(data.parent) not in str(caught.value)


def test_a_bare_name_is_found_further_down(data: Path) -> None:
    """Expected: the one file of that name; where there are two, the question which."""
    assert read_document("deeper.md", context(data)) == "the deeper one"
    (data / "sub" / "deeper.md").write_text("another")

    with pytest.raises(ValueError, match=r"could be sub/deeper.md, sub/deep/deeper.md"):
        read_document("deeper.md", context(data))
    assert read_document("sub/deeper.md", context(data)) == "another"


def test_a_long_listing_is_bounded(tmp_path: Path) -> None:
    """Expected: thirty names and how many more there are."""
    for number in range(40):
        (tmp_path / f"{number:02}.txt").touch()

    with pytest.raises(ValueError, match=r"28.txt, 29.txt, and 10 more\.$"):
        find_file(tmp_path, "x.txt", SUFFIXES)


def test_an_empty_or_missing_folder(tmp_path: Path) -> None:
    """Expected: it is said that there is nothing."""
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="The folder holds none"):
            find_file(folder, "x.txt", SUFFIXES)


def test_reading_a_document_in_parts(tmp_path: Path) -> None:
    """Expected: each part says how to read on, and together they are the whole."""
    text = "".join(f"{number} " for number in range(10_000)).strip()
    (tmp_path / "long.txt").write_text(text)
    first, _, note = read_document("long.txt", context(tmp_path)).rpartition("\n")
    middle = read_document("long.txt", context(tmp_path), PART).rpartition("\n")[0]
    last = read_document("long.txt", context(tmp_path), 2 * PART)

    assert note == f"[{len(text) - PART} characters more: read on with start={PART}]"
    assert first + middle + last == text
    with pytest.raises(ValueError, match=f"has only {len(text)} characters"):
        read_document("long.txt", context(tmp_path), len(text))


def test_a_document_that_cannot_be_read(tmp_path: Path) -> None:
    """Expected: its name and the reason."""
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")

    with pytest.raises(ValueError, match=r"'photo.png' cannot be read: files of kind '.png' are not supported"):
        read_document("photo.png", context(tmp_path))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_lookup_with_any_delimiter(tmp_path: Path, delimiter: str) -> None:
    """Expected: case and blanks do not matter, quoted cells stay whole, short rows do no harm."""
    rows = ["Name;Town ;Note", 'Äpfel & Co;Kiel;"a ; ""b"""', " äPFEL & co ;Bonn", "Other;Rome;x", ""]
    (tmp_path / "t.csv").write_bytes("\n".join(rows).replace(";", delimiter).encode("utf-8-sig"))

    found = lookup_table("t.csv", " NAME", "äpfel &  CO", context(tmp_path))

    assert found == {
        "matches": 2,
        "rows": [
            {"Name": "Äpfel & Co", "Town": "Kiel", "Note": f'a {delimiter} "b"'},
            {"Name": " äPFEL & co ", "Town": "Bonn"},
        ],
    }


def test_lookup_without_a_match_names_similar_values() -> None:
    """Expected: no rows, and the values that the model may have meant."""
    found = lookup_table("suppliers.csv", "supplier", "Nordwind", context(SAMPLES))

    assert found == {"matches": 0, "rows": [], "similar_values": ["Nordwind Paper GmbH"]}


def test_lookup_is_bounded(tmp_path: Path) -> None:
    """Expected: twenty rows of thirty, and the true count."""
    (tmp_path / "t.csv").write_text("a,b\n" + "1,2\n" * 30)

    found = lookup_table("t.csv", "a", "1", context(tmp_path))

    assert (found["matches"], len(list(found["rows"]))) == (30, 20)  # type: ignore[call-overload]  # rows is a list


@pytest.mark.parametrize(
    ("table", "content", "reason"),
    [
        ("t.csv", b"a,b\n1,2\n", "no column 'name' in t.csv. Its columns are: a, b."),
        ("t.csv", b"", "cannot be read: it is empty"),
        ("t.csv", b"\n\n", "has no rows"),
        ("t.csv", b"a\0b", "binary"),
        ("t.csv", b'a,"' + b"x" * 200_000, "field larger than"),
        ("t.txt", b"a,b", "is not a table"),
    ],
)
def test_tables_that_cannot_answer(tmp_path: Path, table: str, content: bytes, reason: str) -> None:
    """Expected: an error the model can act on; a wrong column lists the right ones."""
    (tmp_path / table).write_bytes(content)

    with pytest.raises(ValueError, match=reason):
        lookup_table(table, "name", "x", context(tmp_path))


def test_the_samples_agree_with_each_other() -> None:
    """Expected: about a dozen documents; one alone is unreadable; suppliers and terms are those of the table."""
    with (SAMPLES / "suppliers.csv").open(encoding="utf-8", newline="") as file:
        days = {row["supplier"]: row["payment_days"] for row in csv.DictReader(file)}
    texts, unreadable = {}, []
    for path in sorted((SAMPLES / "documents").iterdir()):
        try:
            texts[path.name] = extract_text(path)
        except Unreadable:
            unreadable.append(path.name)

    assert unreadable == ["scan-damaged.pdf"]
    assert len(texts) >= 10
    for name, text in texts.items():
        facts = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        assert "Supplier" not in facts or facts["Supplier"] in days
        if name.startswith("invoice-"):
            assert f"{days[facts['Supplier']]} days" in facts["Payment"]
            net, rate = facts["Net total"].replace(",", "").split()[0], facts["VAT rate"].rstrip("%")
            assert Decimal(calculate(f"{net} * (1 + {rate} / 100)")) == Decimal(net) * (1 + Decimal(rate) / 100)


def test_a_link_inside_the_folder_is_followed(data: Path) -> None:
    """Expected: links are refused for where they lead, not for being links."""
    (data / "sub" / "same.txt").symlink_to(data / "inside.txt")

    assert read_document("sub/same.txt", context(data)) == "the inside"
