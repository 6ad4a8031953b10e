"""What each loader reads, where it says that it stands, and what it refuses."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.knowledge import documents

from daram.errors import DocumentError, DocumentTooLarge, UnsupportedDocument
from daram.text.load import LoadLimits, Section, clean, kind_of, load

KOREAN = "다람쥐는 도토리를 숨긴다."
SMALL = LoadLimits(unpacked=5 << 20, whole=1 << 20, text=10_000, pages=3)


def read(path: Path, limits: LoadLimits = LoadLimits()) -> list[Section]:
    return list(load(path, limits=limits))


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- kinds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "media_type", "module"),
    [
        ("a.TXT", None, "plain"),
        ("a.md", "text/plain", "markdown"),
        ("a", "text/plain; charset=utf-8", "plain"),
        ("a.bin", "application/pdf", "pdf"),
        ("a.pdf", "application/octet-stream", "pdf"),
        ("a", "Text/HTML", "html"),
    ],
)
def test_the_kind(name: str, media_type: str | None, module: str) -> None:
    assert kind_of(name, media_type) == module


@pytest.mark.parametrize("name", ["program.exe", "a", ".pdf", "a.doc"])
def test_an_unknown_kind_names_the_known_ones(name: str) -> None:
    with pytest.raises(UnsupportedDocument, match=r"\.txt.*\.pdf"):
        kind_of(name)


# --- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        KOREAN.encode(),
        codecs.BOM_UTF8 + KOREAN.encode(),
        KOREAN.encode("utf-16"),
        codecs.BOM_UTF16_BE + KOREAN.encode("utf-16-be"),
        KOREAN.encode("utf-32"),
        KOREAN.encode("cp949"),
    ],
    ids=["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp949"],
)
def test_encodings(tmp_path: Path, raw: bytes) -> None:
    assert read(written(tmp_path / "a.txt", raw)) == [Section(KOREAN)]


def test_a_western_text_and_one_that_is_none(tmp_path: Path) -> None:
    assert read(written(tmp_path / "a.txt", "Ce café où là.".encode("cp1252") * 3)) == [Section("Ce café où là." * 3)]
    [section] = read(written(tmp_path / "b.txt", b"good " * (1 << 18) + b"\xff\xfe\x00\x01 end"))[-1:]
    assert section.text.endswith("end")


def test_a_long_text_comes_in_pieces_and_whole(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {n}. " + "word " * 200 for n in range(500)]
    sections = read(written(tmp_path / "a.txt", "\n\n".join(paragraphs)))
    assert 5 < len(sections) < 12
    assert "\n\n".join(s.text for s in sections).split() == " ".join(paragraphs).split()
    # One line that never ends is read in pieces too.
    pieces = read(written(tmp_path / "b.txt", "x" * 1_000_000))
    assert max(len(p.text) for p in pieces) <= 1 << 17
    assert sum(len(p.text) for p in pieces) == 1_000_000


@given(st.text())
def test_clean_texts_can_be_stored_and_stay_clean(text: str) -> None:
    tidy = clean(text + "\ud800\x00\x1b")
    tidy.encode()
    assert clean(tidy) == tidy
    assert not any(ord(character) < 32 and character not in "\n\t" for character in tidy)


def test_markdown_headings(tmp_path: Path) -> None:
    text = (
        "before\n# One #\ntext\n```sh\n# no heading\n```\n## 둘\n도토리\n\nThree\n=====\nlast\n####### seven\n#\nempty"
    )
    assert read(written(tmp_path / "a.md", text)) == [
        Section("before"),
        Section("text\n```sh\n# no heading\n```", heading=("One",)),
        Section("도토리", heading=("One", "둘")),
        Section("last\n####### seven", heading=("Three",)),
        Section("empty", heading=("",)),
    ]


def test_html_is_what_a_reader_sees(tmp_path: Path) -> None:
    page = """<!doctype html><html><head><title>no</title><style>no</style></head><body onload="no()">
      <script>no()</script><nav>no</nav><!-- no --><p hidden>no</p><noscript>no</noscript>
      <h1>Squirrels &amp; nuts</h1><p>It <b>hi</b>des
      acorns.</p><ul><li>one</li><li>two</li></ul>
      <h2>다람쥐</h2><pre>def f():\n    return 1</pre><table><tr><th>a</th><td>b</td></tr></table>
      <iframe srcdoc="no"></iframe><svg><text>no</text></svg></body></html>"""
    assert read(written(tmp_path / "a.html", page)) == [
        Section("It hides acorns.\none\ntwo", heading=("Squirrels & nuts",)),
        Section("def f():\n    return 1\na | b |", heading=("Squirrels & nuts", "다람쥐")),
    ]


@pytest.mark.parametrize("page", ["<div>" * 5000 + "deep" + "</div>" * 5000, "<p>deep", "<b><i>deep</b></i>"])
def test_html_that_is_badly_made(tmp_path: Path, page: str) -> None:
    assert [s.text for s in read(written(tmp_path / "a.html", page))] in (["deep"], [])


# --- tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_rows_name_their_columns(tmp_path: Path, mark: str) -> None:
    rows = (("name", "가격"), ("Tuna", "3"), ("", ""), ("acorn", "12"))
    path = written(tmp_path / "a.csv", "\r\n".join(mark.join(row) for row in rows))
    assert read(path) == [Section("name: Tuna | 가격: 3\nname: acorn | 가격: 12")]


def test_csv_that_is_none(tmp_path: Path) -> None:
    assert read(written(tmp_path / "a.csv", "just one line")) == [Section("just one line")]
    assert read(written(tmp_path / "b.csv", "\n\n")) == []
    assert read(written(tmp_path / "c.csv", b'"never closed\x00\n' + b"x" * 1000))


def test_sheets(tmp_path: Path) -> None:
    [section] = read(documents.sheet(tmp_path / "a.xlsx"))
    # No formula, no link, no hidden sheet: only values.
    assert section == Section("what: acorns | how many: 12\nwhat: 밤 | how many: 7", heading=("Stock",))


# --- pages ----------------------------------------------------------------------------------------------------------


def test_word(tmp_path: Path) -> None:
    assert read(documents.word(tmp_path / "a.docx")) == [
        Section(KOREAN, heading=("동물",)),
        Section(f"{documents.LINES[0]}\nname | weight\nTuna | 300 g", heading=("동물", "Squirrels")),
    ]


def test_slides(tmp_path: Path) -> None:
    assert read(documents.slides(tmp_path / "a.pptx")) == [
        Section(documents.LINES[0], 1, ("Acorns",)),
        Section(f"{KOREAN}\nSay it slowly.", 2, ("도토리",)),
    ]


def test_pdf_pages(tmp_path: Path) -> None:
    path = documents.pdf(tmp_path / "a.pdf", [[documents.LINES[0]], [], [documents.LINES[1], "It is a squir-", "rel."]])
    assert read(path) == [Section(documents.LINES[0], 1), Section(f"{documents.LINES[1]}\nIt is a squirrel.", 3)]


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pdf", ".docx", ".pptx", ".xlsx"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"%PDF-1.7\n1 0 obj", b"PK\x03\x04 nonsense"])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    with pytest.raises(DocumentError, match=rf"a\{suffix}: .*(damaged|none of its pages|is empty)"):
        read(written(tmp_path / f"a{suffix}", content))


@pytest.mark.parametrize("suffix", [".docx", ".pptx", ".xlsx"])
def test_an_archive_of_another_kind(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(DocumentError, match="damaged"):
        read(documents.bomb(tmp_path / f"a{suffix}", "readme.txt", 0))


@pytest.mark.parametrize(
    ("suffix", "part"),
    [(".docx", "word/document.xml"), (".pptx", "ppt/media/x.png"), (".xlsx", "xl/sharedStrings.xml")],
)
def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, suffix: str, part: str) -> None:
    path = documents.bomb(tmp_path / f"a{suffix}", part, 8)
    assert path.stat().st_size < 20_000
    with pytest.raises(DocumentTooLarge, match="unpacks to"):
        read(path, SMALL)


def test_encrypted_pdfs(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="encrypted"):
        read(documents.pdf(tmp_path / "a.pdf", [["secret"]], password="word"))


def test_bounds(tmp_path: Path) -> None:
    with pytest.raises(DocumentTooLarge, match="at most 10 are taken"):
        read(written(tmp_path / "a.txt", "x" * 11), LoadLimits(file=10))
    with pytest.raises(DocumentTooLarge, match="characters of text"):
        read(written(tmp_path / "b.txt", "x " * 6000), SMALL)
    with pytest.raises(DocumentTooLarge, match="4 pages"):
        read(documents.pdf(tmp_path / "c.pdf", [["x"]] * 4), SMALL)
