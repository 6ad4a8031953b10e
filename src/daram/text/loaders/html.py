"""HTML: what a reader sees; scripts, styles and forms are left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bs4 import BeautifulSoup
from bs4.element import NavigableString, PreformattedString, Tag

from daram.errors import DocumentError, DocumentTooLarge
from daram.text.load import LoadLimits, Section
from daram.text.loaders.markdown import Outline

_UNSEEN: Final = frozenset(
    {
        *("script", "style", "template", "noscript", "iframe", "object", "embed", "svg", "math", "canvas", "audio"),
        *("video", "head", "nav", "form", "button", "select", "input", "textarea", "dialog"),
    }
)
_BLOCKS: Final = frozenset(
    {
        *("address", "article", "aside", "blockquote", "body", "br", "dd", "details", "div", "dl", "dt", "figcaption"),
        *("figure", "footer", "header", "hr", "li", "main", "ol", "p", "pre", "section", "summary", "table", "tr"),
        "ul",
    }
)
_CELLS: Final = frozenset(("td", "th"))
_HEADINGS: Final = {f"h{n}": n for n in range(1, 7)}
_SPACES: Final = re.compile(r"\s+")
_KEPT: Final = "\x01"  # a space of preformatted text, until the others have been tidied
_DEEPEST: Final = 200  # levels of nesting; deeper ones are read as the text of the last


def load(path: Path, name: str, limits: LoadLimits) -> Iterator[Section]:
    """The text under each heading."""
    size = path.stat().st_size
    if size > limits.whole:
        raise DocumentTooLarge(name, f"{size:,} bytes of HTML, but at most {limits.whole:,} are read")
    try:
        page = BeautifulSoup(path.read_bytes(), "lxml")
    except Exception as error:
        raise DocumentError(name, f"cannot be read as HTML ({type(error).__name__})") from error
    outline = Outline()
    block: list[str] = []
    for kind, text in _pieces(page, 0):
        level = _HEADINGS.get(kind)
        if level is None:
            block.append(text)
            continue
        yield Section(_tidy(block), heading=outline.path)
        block = []
        title = " ".join(text.split())
        if title:
            outline.enter(level, title)
    yield Section(_tidy(block), heading=outline.path)


def _pieces(tag: Tag, depth: int) -> Iterator[tuple[str, str]]:
    """(kind, text) in reading order: "text", or the name of a heading."""
    for child in tag.children:
        if isinstance(child, NavigableString):
            if not isinstance(child, PreformattedString):  # comments, declarations
                is_pre = any(parent.name == "pre" for parent in child.parents)
                yield "text", str(child).replace(" ", _KEPT) if is_pre else _SPACES.sub(" ", str(child))
        elif isinstance(child, Tag):
            if child.name in _UNSEEN or child.has_attr("hidden") or child.get("aria-hidden") == "true":
                continue
            if child.name in _HEADINGS:
                yield child.name, child.get_text(" ")
            elif depth >= _DEEPEST:
                yield "text", child.get_text(" ") + "\n"
            else:
                ends = "\n" if child.name in _BLOCKS else " | " if child.name in _CELLS else ""
                if ends == "\n":
                    yield "text", "\n"
                yield from _pieces(child, depth + 1)
                if ends:
                    yield "text", ends


def _tidy(pieces: list[str]) -> str:
    lines = (line.strip() for line in "".join(pieces).split("\n"))
    return "\n".join(line for line in lines if line.strip("| ")).replace(_KEPT, " ")
