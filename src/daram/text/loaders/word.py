"""DOCX: paragraphs and tables in the order of the body, under their headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import docx
from docx.oxml.ns import qn
from docx.table import Table, _Cell
from docx.text.paragraph import Paragraph
from docx.text.run import Run

from daram.errors import DocumentError
from daram.text.load import LoadLimits, Section
from daram.text.loaders import archive
from daram.text.loaders.markdown import Outline

_HEADING: Final = re.compile(r"(?:heading|제목|title)\s*(\d?)$", re.IGNORECASE)
_BLOCK: Final = 1 << 16
_HIDDEN: Final = qn("w:vanish")


def load(path: Path, name: str, limits: LoadLimits) -> Iterator[Section]:
    """The text under each heading."""
    archive.check(path, name, limits)
    try:
        document = docx.Document(str(path))
    except Exception as error:
        raise DocumentError(name, f"is damaged, or no Word file ({type(error).__name__})") from error
    outline = Outline()
    block: list[str] = []
    size = 0
    for item in document.iter_inner_content():
        if isinstance(item, Table):
            text = "\n".join(" | ".join(" ".join(_cell(cell).split()) for cell in row.cells) for row in item.rows)
        else:
            text = _seen(item)
            style = _HEADING.match((item.style.name if item.style is not None else "") or "")
            if style is not None and text.strip():
                yield Section("\n".join(block), heading=outline.path)
                block, size = [], 0
                outline.enter(int(style[1] or 0), " ".join(text.split()))
                continue
        block.append(text)
        size += len(text)
        if size >= _BLOCK:
            yield Section("\n".join(block), heading=outline.path)
            block, size = [], 0
    yield Section("\n".join(block), heading=outline.path)


def _cell(cell: _Cell) -> str:
    return "\n".join(_seen(paragraph) for paragraph in cell.paragraphs)


def _seen(paragraph: Paragraph) -> str:
    """The text but for what is marked as hidden."""
    if next(paragraph._p.iter(_HIDDEN), None) is None:
        return paragraph.text
    runs = (run for item in paragraph.iter_inner_content() for run in ([item] if isinstance(item, Run) else item.runs))
    return "".join(run.text for run in runs if not run.font.hidden)
