"""DOCX: paragraphs and tables in the order of the body, under their headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import docx
from docx.table import Table

from daram.errors import DocumentError
from daram.text.load import LoadLimits, Section
from daram.text.loaders import archive
from daram.text.loaders.markdown import Outline

_HEADING: Final = re.compile(r"(?:heading|제목|title)\s*(\d?)$", re.IGNORECASE)
_BLOCK: Final = 1 << 16


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
            text = "\n".join(" | ".join(" ".join(cell.text.split()) for cell in row.cells) for row in item.rows)
        else:
            text = item.text
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
