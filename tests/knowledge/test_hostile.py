"""Documents that were made to do harm, or were made badly: nothing of them runs, hides, hangs or fills the memory."""

from __future__ import annotations

import struct
import unicodedata
import zipfile
import zlib
from pathlib import Path

import docx
import openpyxl
import pptx
import pypdf
import pytest
from pypdf.generic import ArrayObject, DecodedStreamObject, DictionaryObject, NameObject, NumberObject
from tests.knowledge import documents

from daram.errors import DocumentError
from daram.text.chunk import chunks
from daram.text.load import LoadLimits, load

SECRET = "SECRET"  # what nobody who reads the document sees
KOREAN = "다람쥐는 도토리를 숨긴다."
SMALL = LoadLimits(unpacked=5 << 20, whole=1 << 20, text=100_000, pages=30)
LAUGHS = (
    '<!DOCTYPE x [<!ENTITY a "haha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">'
    '<!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;"><!ENTITY e "&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;">'
    '<!ENTITY f "&e;&e;&e;&e;&e;&e;&e;&e;&e;&e;"><!ENTITY file SYSTEM "file://{file}">]>'
)


def text_of(path: Path, limits: LoadLimits = LoadLimits(), name: str | None = None) -> str:
    sections = list(load(path, limits=limits, name=name))
    return "\n".join(" > ".join((*section.heading, section.text)) for section in sections)


def outcome(path: Path, limits: LoadLimits = LoadLimits()) -> str:
    """The text, or why the document is refused, where either will do."""
    try:
        return text_of(path, limits)
    except DocumentError as error:
        return str(error)


def refusal(path: Path, limits: LoadLimits = LoadLimits()) -> str:
    """Why a document is refused: one line that begins with its name."""
    with pytest.raises(DocumentError) as caught:
        text_of(path, limits)
    said = str(caught.value)
    assert said.startswith(f"{path.name}: ")
    assert "\n" not in said
    return said


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- what is hidden, and what is said beside the text ----------------------------------------------------------------


def test_html_that_hides_text_and_runs_scripts(tmp_path: Path) -> None:
    page = f"""<!doctype html><html><head><title>{SECRET}</title><meta name="description" content="{SECRET}">
      <meta http-equiv="refresh" content="0;url=http://127.0.0.1/{SECRET}"><base href="http://127.0.0.1/{SECRET}">
      <link rel="stylesheet" href="http://127.0.0.1/{SECRET}.css"><style>p::before{{content:"{SECRET}"}}</style></head>
      <body onload="{SECRET}()"><script>{SECRET}</script ><script src="{SECRET}"></script><SCRIPT>{SECRET}</SCRIPT>
      <p style="display : none">{SECRET}</p><div style="color:red;visibility:hidden"><b>{SECRET}</b></div>
      <span style="font-size:0px">{SECRET}</span><span style="opacity:0.0;">{SECRET}</span>
      <div hidden><p>{SECRET}</p></div><div aria-hidden="true">{SECRET}</div><!-- {SECRET} -->
      <![CDATA[{SECRET}]]>
      <img src="x" alt="{SECRET}" onerror="{SECRET}()"><a href="javascript:{SECRET}" title="{SECRET}">A link</a>
      <svg><script>{SECRET}</script><text>{SECRET}</text></svg><template><p>{SECRET}</p></template>
      <h1 onclick="{SECRET}()">Squir<span hidden>{SECRET}</span>rels</h1>
      <p style="font-size:0.9em; opacity:0.5">They hide <i>acorns</i>.</p><b-c data-x="{SECRET}">Still seen.</b-c>"""
    assert text_of(written(tmp_path / "a.html", page)) == "A link\nSquirrels > They hide acorns.\nStill seen."


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<div>" * 5000 + "deep" + "</div>" * 5000, "deep"),
        ("<b>" * 5000 + "deep", "deep"),
        ("<p hidden><p>seen", "seen"),
        ("<scr<script>ipt>no</script>seen", "ipt>no"),
        ("<h1>" + "long " * 1000 + "<p>seen", "seen"),
        ("<!-- never closed <p>no", ""),
        ("<p>" + "x " * 200_000 + "<h2>two</h2>end", "two > end"),
        ("\x00<p>a\x00b", "ab"),
        ("&lt;script&gt;shown as it is&lt;/script&gt;", "<script>shown as it is</script>"),
        ("&#0;&#xD800;&#x110000;&notanentity;ok", "ok"),
    ],
)
def test_html_that_is_badly_made(tmp_path: Path, page: str, text: str) -> None:
    assert text in text_of(written(tmp_path / "a.html", page))


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ('<meta charset="euc-kr">', "cp949"),
        ("<META http-equiv=Content-Type content='text/html; charset=ks_c_5601-1987'>", "cp949"),
        ('<?xml version="1.0" encoding="EUC-KR"?>', "euc-kr"),
        ("", "cp949"),
        ("", "utf-16"),
        ('<meta charset="euc-kr">', "utf-8"),  # it says what it is not
        ('<meta charset="zlib">', "utf-8"),
        ('<meta charset="punycode">', "utf-8"),
    ],
)
def test_html_in_korean_encodings(tmp_path: Path, head: str, encoding: str) -> None:
    assert text_of(written(tmp_path / "a.html", f"{head}<p>{KOREAN}".encode(encoding))) == KOREAN


def test_office_documents_that_hide_text(tmp_path: Path) -> None:
    document = docx.Document()
    for name in ("title", "subject", "comments", "keywords", "author"):
        setattr(document.core_properties, name, SECRET)
    paragraph = document.add_paragraph("Seen. ")
    paragraph.add_run(SECRET).font.hidden = True
    paragraph.add_run("Also.")
    document.add_table(1, 1).cell(0, 0).paragraphs[0].add_run(SECRET).font.hidden = True
    document.save(str(tmp_path / "a.docx"))
    assert text_of(tmp_path / "a.docx") == "Seen. Also."
    show = pptx.Presentation()
    show.core_properties.title = SECRET
    slide = show.slides.add_slide(show.slide_layouts[5])
    slide.shapes.title.text = "Seen"
    slide.shapes.title._element.nvSpPr.cNvPr.set("descr", SECRET)
    show.save(str(tmp_path / "a.pptx"))
    assert text_of(tmp_path / "a.pptx") == "Seen > Seen"
    book = openpyxl.Workbook()
    book.properties.title = SECRET
    book.active.append(["Seen"])
    book.active["A1"].comment = openpyxl.comments.Comment(SECRET, SECRET)
    book.create_sheet(SECRET).sheet_state = "veryHidden"
    book.save(tmp_path / "a.xlsx")
    assert text_of(tmp_path / "a.xlsx") == "Sheet > Seen"


def test_of_formulas_their_values_are_read_and_nothing_is_calculated(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["what", "how many"], ["acorns", "=1+1"], ["link", '=HYPERLINK("http://x","y")'], ["odd", "=1/0"]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    # As a spreadsheet program saves them: with what came out. The first one lies, and is believed.
    path, part = tmp_path / "a.xlsx", "xl/worksheets/sheet1.xml"
    values = documents.edited(path, part, lambda xml: xml.replace(b"1+1</f><v></v>", b"1+1</f><v>41</v>"))
    text = text_of(values)
    assert "what: acorns | how many: 41" in text
    assert "HYPERLINK" not in text
    assert "1/0" not in text
    # In a CSV there is only text: it is read as it stands.
    assert text_of(written(tmp_path / "a.csv", "a,b\n=1+1,@SUM(1)\n")) == "a: =1+1 | b: @SUM(1)"


# --- archives -------------------------------------------------------------------------------------------------------


def minimal(path: Path) -> Path:
    makers = {".docx": docx.Document, ".pptx": pptx.Presentation, ".xlsx": openpyxl.Workbook}
    makers[path.suffix]().save(str(path))
    return path


BODIES = {".docx": "word/document.xml", ".pptx": "ppt/presentation.xml", ".xlsx": "xl/workbook.xml"}


@pytest.mark.parametrize("suffix", BODIES)
def test_entities_are_neither_multiplied_nor_fetched(tmp_path: Path, suffix: str) -> None:
    secret = written(tmp_path / "secret.txt", SECRET)
    bomb = LAUGHS.format(file=secret).encode()

    def change(xml: bytes) -> bytes:
        head, _, rest = xml.partition(b"?>")
        rest = rest if head.startswith(b"<?xml") else xml
        root_end = rest.index(b">") + 1
        return b'<?xml version="1.0"?>' + bomb + rest[:root_end] + b"&f;&file;" + rest[root_end:]

    path = documents.edited(minimal(tmp_path / f"a{suffix}"), BODIES[suffix], change)
    text = outcome(path, SMALL)
    assert SECRET not in text
    assert "hahaha" not in text


@pytest.mark.parametrize("shared", [True, False])
def test_entities_in_the_parts_that_are_streamed(tmp_path: Path, shared: bool) -> None:
    book = openpyxl.Workbook()
    book.active.append(["acorns"])
    book.save(tmp_path / "a.xlsx")
    bomb = LAUGHS.format(file=written(tmp_path / "secret.txt", SECRET)).encode()

    def change(xml: bytes) -> bytes:
        if shared:
            return xml.replace(b't="inlineStr"><is><t>acorns</t></is>', b't="s"><v>0</v>')
        return bomb + xml.replace(b"acorns", b"acorns&f;&file;")

    path = documents.edited(tmp_path / "a.xlsx", "xl/worksheets/sheet1.xml", change)
    if shared:
        kind = b"application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
        override = b'<Override PartName="/xl/sharedStrings.xml" ContentType="%s"/></Types>' % kind
        documents.edited(path, "[Content_Types].xml", lambda xml: xml.replace(b"</Types>", override))
        with zipfile.ZipFile(path, "a") as archive:
            space = b'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
            archive.writestr("xl/sharedStrings.xml", bomb + b"<sst %s><si><t>acorns&f;&file;</t></si></sst>" % space)
    assert refusal(path, SMALL)


@pytest.mark.parametrize("suffix", BODIES)
def test_an_archive_within_an_archive_is_not_opened(tmp_path: Path, suffix: str) -> None:
    inner = documents.bomb(tmp_path / "inner.zip", "x.xml", 64)
    path = minimal(tmp_path / f"a{suffix}")
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(inner, "media/inner.zip")
        archive.write(inner, f"media/inner{suffix}")
    assert text_of(path, SMALL) == ""


def test_parts_that_overlap_are_counted_each(tmp_path: Path) -> None:
    """David Fifield's bomb in small: many entries of the directory share one packed megabyte."""
    path = documents.bomb(tmp_path / "a.docx", "word/document.xml", 1)
    raw = path.read_bytes()
    start, end = raw.index(b"PK\x01\x02"), raw.index(b"PK\x05\x06")
    entries = raw[start:end] * 100
    tail = bytearray(raw[end:])
    struct.pack_into("<HHLL", tail, 8, 100, 100, len(entries), start)
    written(path, raw[:start] + entries + tail)
    assert "unpacks to more than" in refusal(path, SMALL)


def test_a_part_that_is_longer_than_it_says(tmp_path: Path) -> None:
    path = documents.bomb(tmp_path / "a.docx", "word/document.xml", 8)
    raw = path.read_bytes()
    written(path, raw.replace(struct.pack("<L", 8 << 20), struct.pack("<L", 100)))
    assert "damaged" in refusal(path, SMALL)


def test_an_encrypted_office_document(tmp_path: Path) -> None:
    ole = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600)
    for suffix in BODIES:
        assert "encrypted" in refusal(written(tmp_path / f"a{suffix}", ole))


# --- PDF ------------------------------------------------------------------------------------------------------------


def pdf(tmp_path: Path, *, contents: bytes = b"BT (seen) Tj ET", resources: DictionaryObject | None = None) -> Path:
    """One page that draws this."""
    writer = pypdf.PdfWriter()
    page = writer.add_blank_page(100, 100)
    stream = DecodedStreamObject()
    stream.set_data(contents)
    page[NameObject("/Contents")] = writer._add_object(stream.flate_encode())
    if resources is not None:
        page[NameObject("/Resources")] = resources
    path = tmp_path / "a.pdf"
    writer.write(str(path))
    return path


def test_pdfs_that_go_round_in_circles(tmp_path: Path) -> None:
    raw = documents.pdf(tmp_path / "a.pdf", [["one"], ["two"]]).read_bytes()
    start = raw.rindex(b"startxref")
    number = raw[start:].split()[1]
    for name, broken in {
        "tables": raw.replace(b"trailer\n<<", b"trailer\n<< /Prev " + number),
        "tree": raw.replace(b"/Type /Page\n", b"/Type /Pages /Count 9 /Kids [ 1 0 R 2 0 R 3 0 R 4 0 R 5 0 R 6 0 R ]\n"),
        "count": raw.replace(b"/Count 2", b"/Count 999999999"),
    }.items():
        assert broken != raw, name
        assert len(outcome(written(tmp_path / "b.pdf", broken))) < 1000, name


def test_a_pdf_whose_form_draws_itself(tmp_path: Path) -> None:
    form = DecodedStreamObject()
    form.set_data(b"BT (again) Tj ET /Me Do /Me Do")
    form.update({NameObject("/Type"): NameObject("/XObject"), NameObject("/Subtype"): NameObject("/Form")})
    objects = DictionaryObject({NameObject("/Me"): form})
    form[NameObject("/Resources")] = DictionaryObject({NameObject("/XObject"): objects})
    writer = pypdf.PdfWriter()
    page = writer.add_blank_page(100, 100)
    here = writer._add_object(form)
    objects[NameObject("/Me")] = here
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/XObject"): objects})
    stream = DecodedStreamObject()
    stream.set_data(b"/Me Do")
    page[NameObject("/Contents")] = writer._add_object(stream)
    writer.write(str(tmp_path / "a.pdf"))
    assert len(outcome(tmp_path / "a.pdf")) < 10_000


def test_a_pdf_with_a_page_that_unpacks_to_much(tmp_path: Path) -> None:
    path = pdf(tmp_path, contents=b" " * (100 << 20) + b"BT (seen) Tj ET")
    assert path.stat().st_size < 200_000
    assert text_of(path) == ""  # the page is left out


def test_a_picture_in_a_pdf_is_not_unpacked(tmp_path: Path) -> None:
    picture = DecodedStreamObject()
    picture._data = zlib.compress(bytes(1 << 20)) + b"broken"
    picture.update(
        {
            NameObject("/Type"): NameObject("/XObject"),
            NameObject("/Subtype"): NameObject("/Image"),
            NameObject("/Width"): NumberObject(1_000_000),
            NameObject("/Height"): NumberObject(1_000_000),
            NameObject("/ColorSpace"): NameObject("/DeviceRGB"),
            NameObject("/BitsPerComponent"): NumberObject(8),
            NameObject("/Filter"): ArrayObject([NameObject("/FlateDecode")] * 5),
        }
    )
    resources = DictionaryObject({NameObject("/XObject"): DictionaryObject({NameObject("/P"): picture})})
    assert text_of(pdf(tmp_path, contents=b"/P Do BT (seen) Tj ET", resources=resources)) == "seen"


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_a_pdf_that_was_cut_off(tmp_path: Path, part: float) -> None:
    raw = documents.pdf(tmp_path / "a.pdf", [["acorns"], ["nuts"]]).read_bytes()
    path = written(tmp_path / "b.pdf", raw[: int(len(raw) * part)])
    text = outcome(path)
    assert "damaged" in text or set(text.split()) <= {"acorns", "nuts"}


# --- texts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.csv", "a.html"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"%PDF-1.7\n", "a PDF"),
        (b"PK\x03\x04", "zip"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
        (b"\xff\xd8\xff\xe0", "picture"),
        (b"\x1f\x8b\x08", "compressed"),
        (b"\x7fELF", "program"),
        (b"", "empty"),
    ],
)
def test_what_is_no_text_is_not_read_as_one(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    assert what in refusal(written(tmp_path / name, content))


@pytest.mark.parametrize("suffix", [".pdf", ".docx", ".pptx", ".xlsx"])
def test_a_text_under_another_name(tmp_path: Path, suffix: str) -> None:
    assert "damaged" in refusal(written(tmp_path / f"a{suffix}", "<html><script>alert(1)</script>"))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_wide_text_without_its_mark(tmp_path: Path, encoding: str) -> None:
    assert (
        text_of(written(tmp_path / "a.txt", "The squirrel hides acorns.".encode(encoding)))
        == "The squirrel hides acorns."
    )


def test_korean_as_a_mac_writes_it_is_composed(tmp_path: Path) -> None:
    assert text_of(written(tmp_path / "a.txt", unicodedata.normalize("NFD", KOREAN))) == KOREAN


def test_what_is_not_written_in_any_encoding_is_marked(tmp_path: Path) -> None:
    lone = "good \ud800 text".encode("utf-8", "surrogatepass") + b"\x00 end"
    text = text_of(written(tmp_path / "a.txt", b"x" * (1 << 20) + b" " + lone))
    assert text.endswith("text end")
    assert "\x00" not in text
    text.encode()


@pytest.mark.parametrize(
    "line",
    [
        "# " + " \t" * (1 << 16) + "x",
        "# " + "# " * (1 << 16),
        "=" * (1 << 17) + "x",
        "`" * (1 << 17),
        '"' * (1 << 17),
        ',"' * (1 << 16),
        ",'a" * (1 << 16),
        "<" * (1 << 17),
        "<!--" * (1 << 15),
        "&" * (1 << 17),
    ],
    ids=lambda line: line[:6].strip(),
)
def test_lines_that_are_traps_for_parsers(tmp_path: Path, line: str) -> None:
    """Where one goes back and forth over such a line it is at it for hours: the time of a test bounds it."""
    for name in ("a.txt", "a.md", "a.csv", "a.html"):
        sections = list(load(written(tmp_path / name, line)))
        assert sum(len(section.text) for section in sections) <= len(line)


def test_ten_megabytes_on_one_line(tmp_path: Path) -> None:
    for name in ("a.txt", "a.md", "a.csv", "a.html"):
        sections = list(load(written(tmp_path / name, "x" * (10 << 20))))
        assert sum(len(section.text) for section in sections) == 10 << 20
        assert max(len(section.text) for section in sections) <= 1 << 17
    cut = list(chunks(sections[:2]))
    assert "".join(chunk.text for chunk in cut)[:1000] == "x" * 1000
    assert max(len(chunk.text) for chunk in cut) <= 1000


def test_the_marks_of_headings(tmp_path: Path) -> None:
    lines = ["# a ##", "x", "## b#", "x", "### ##", "x", "#\tc \t#\t", "x", "#no", "x"]
    assert [section.heading for section in load(written(tmp_path / "a.md", "\n".join(lines)))] == [
        ("a",),
        ("a", "b#"),
        ("a", "b#", ""),
        ("c",),
    ]


def test_tables_are_cut_by_size_too(tmp_path: Path) -> None:
    rows = ["name,text", *(f'{n},"{"acorn " * 5000}"' for n in range(50))]
    sections = list(load(written(tmp_path / "a.csv", "\n".join(rows))))
    assert len(sections) > 10
    assert max(len(section.text) for section in sections) < 200_000
    wide = "x" * 100_000
    assert len(text_of(written(tmp_path / "b.csv", f"{wide},b\n1,2\n"))) < 300
    assert "16,777,216 characters" in refusal(written(tmp_path / "c.csv", "a,b\n" + "x" * (17 << 20)))
