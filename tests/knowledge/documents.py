"""Documents of every kind, made by the libraries that people make them with."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import docx
import openpyxl
import pptx
from reportlab.pdfgen import canvas

LINES = ("The squirrel hides acorns.", "It finds most of them again.")


def pdf(path: Path, pages: list[list[str]], *, password: str | None = None) -> Path:
    """A page for each list of lines (Latin letters only: reportlab's built-in fonts)."""
    drawing = canvas.Canvas(str(path), encrypt=password)
    for page in pages:
        for number, line in enumerate(page):
            drawing.drawString(72, 780 - 16 * number, line)
        drawing.showPage()
    drawing.save()
    return path


def word(path: Path) -> Path:
    document = docx.Document()
    document.add_heading("동물", 1)
    document.add_paragraph("다람쥐는 도토리를 숨긴다.")
    document.add_heading("Squirrels", 2)
    document.add_paragraph(LINES[0])
    table = document.add_table(2, 2)
    for row, values in enumerate((("name", "weight"), ("Tuna", "300 g"))):
        for column, value in enumerate(values):
            table.cell(row, column).text = value
    document.save(str(path))
    return path


def slides(path: Path) -> Path:
    show = pptx.Presentation()
    for title, body in (("Acorns", LINES[0]), ("도토리", "다람쥐는 도토리를 숨긴다.")):
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = body
    slide.notes_slide.notes_text_frame.text = "Say it slowly."
    show.save(str(path))
    return path


def sheet(path: Path) -> Path:
    book = openpyxl.Workbook()
    page = book.active
    page.title = "Stock"
    for row in (["what", "how many"], ["acorns", 12.0], ['=HYPERLINK("http://example.org")', "=1+1"], ["밤", 7]):
        page.append(row)
    hidden = book.create_sheet("Hidden")
    hidden.append(["secret", "x"])
    hidden.sheet_state = "hidden"
    book.save(str(path))
    return path


def bomb(path: Path, part: str, megabytes: int) -> Path:
    """An archive of which one part unpacks to much more than the file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(part, "w") as file:
        for _ in range(megabytes):
            file.write(b"0" * (1 << 20))
    return path


def edited(path: Path, part: str, change: Callable[[bytes], bytes]) -> Path:
    """The archive with one part changed."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts[part] = change(parts[part])
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    path.write_bytes(made.getvalue())
    return path
