"""PPTX: each slide is a page; its title is the heading, its notes come last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from pptx import Presentation

from daram.errors import DocumentError
from daram.text.load import LoadLimits, Section
from daram.text.loaders import archive

_DEEPEST: Final = 20  # groups within groups


def load(path: Path, name: str, limits: LoadLimits) -> Iterator[Section]:
    """A section for each slide."""
    archive.check(path, name, limits)
    try:
        slides: Any = Presentation(str(path)).slides
    except Exception as error:
        raise DocumentError(name, f"is damaged, or no PowerPoint file ({type(error).__name__})") from error
    for number, slide in enumerate(slides, 1):
        title = slide.shapes.title
        heading = " ".join(title.text_frame.text.split()) if title is not None else ""
        texts = list(_texts((shape for shape in slide.shapes if title is None or shape.shape_id != title.shape_id), 0))
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            texts.append(slide.notes_slide.notes_text_frame.text)
        yield Section("\n".join(texts) or heading, number, (heading,) if heading else ())


def _texts(shapes: Iterable[Any], depth: int) -> Iterator[str]:
    for shape in shapes:
        if shape.has_text_frame:
            yield shape.text_frame.text
        elif getattr(shape, "has_table", False):
            for row in shape.table.rows:
                yield " | ".join(" ".join(cell.text_frame.text.split()) for cell in row.cells)
        elif depth < _DEEPEST:
            yield from _texts(getattr(shape, "shapes", ()), depth + 1)
