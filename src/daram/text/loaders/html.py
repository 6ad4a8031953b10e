"""HTML: what a reader sees; scripts, styles and forms are left out. Read as it comes, so that no tree is built."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from lxml import etree

from daram.errors import DocumentError
from daram.text.load import LoadLimits, Section
from daram.text.loaders import plain
from daram.text.loaders.markdown import Outline

_UNSEEN: Final = frozenset(
    {
        *("script", "style", "template", "noscript", "iframe", "object", "embed", "svg", "math", "canvas", "audio"),
        *("video", "head", "nav", "form", "button", "select", "input", "textarea", "dialog"),
    }
)
# What a page hides from its readers it may have written for the model.
_HIDDEN: Final = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|(?:opacity|font-size)\s*:\s*0*(?:\.0*)?(?:[a-z%]+)?\s*(?:;|!|$)",
    re.IGNORECASE,
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
_BLOCK: Final = 1 << 16  # characters of one section, about
_LONGEST_HEADING: Final = 1 << 11  # what is longer is text
_PIECE: Final = 1 << 18
_SNIFFED: Final = 1 << 12
# Encodings of texts: Python has others too, which pack or escape.
_KNOWN: Final = ("utf-8", "cp", "iso", "koi8", "euc", "gb", "big5", "shift", "johab", "mac", "tis", "hz")
_SAYS: Final = re.compile(rb"<(?:meta\b[^>]*?charset|\?xml\b[^>]*?encoding)\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
# What people write, and what they mean by it.
_MEANT: Final = {"euc_kr": "cp949", "ascii": "cp1252", "iso8859-1": "cp1252", "utf-16": "utf-8", "utf-32": "utf-8"}


def load(path: Path, name: str, limits: LoadLimits) -> Iterator[Section]:
    """The text under each heading."""
    page = _Page()
    parser = etree.HTMLParser(target=page, encoding="utf-8", huge_tree=True)
    with path.open(encoding=_encoding(path), errors="replace") as file:
        while piece := file.read(_PIECE):
            try:
                parser.feed(piece.replace("\x00", "").encode("utf-8", "replace"))
            except etree.LxmlError as error:
                raise DocumentError(name, f"cannot be read as HTML ({type(error).__name__})") from error
            yield from page.taken()
    try:
        parser.close()
    except etree.LxmlError as error:
        if not page.began:  # nothing at all
            return
        raise DocumentError(name, f"cannot be read as HTML ({type(error).__name__})") from error
    page.flush()
    yield from page.taken()


class _Page:
    """What the parser tells, as sections."""

    def __init__(self) -> None:
        self.began = False
        self._outline = Outline()
        self._done: list[Section] = []
        self._block: list[str] = []
        self._size = 0
        self._depth = 0
        self._unseen = 0  # the depth at which what is not seen began
        self._pre = 0
        self._level = 0  # of the heading that is being read
        self._heading: list[str] = []
        self._length = 0

    def taken(self) -> list[Section]:
        """The sections that are complete, each once."""
        done, self._done = self._done, []
        return done

    def flush(self) -> None:
        """What was read is a section."""
        text = _tidy(self._block)
        if text:
            self._done.append(Section(text, heading=self._outline.path))
        self._block, self._size = [], 0

    # --- what the parser calls ---

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self.began = True
        self._depth += 1
        if self._unseen:
            return
        if tag in _UNSEEN or _is_hidden(attributes):
            self._unseen = self._depth
        elif tag in _HEADINGS:
            self._end_heading()
            self._level = _HEADINGS[tag]
        elif self._level:
            self._heading.append(" ")
        elif tag in _BLOCKS:
            self._pre += tag == "pre"
            self._text("\n")

    def end(self, tag: str) -> None:
        if self._unseen:
            if self._unseen == self._depth:
                self._unseen = 0
        elif tag in _HEADINGS:
            self._end_heading()
        elif self._level:
            self._heading.append(" ")
        elif tag in _BLOCKS:
            self._pre = max(0, self._pre - (tag == "pre"))
            self._text("\n")
            if self._size >= _BLOCK:
                self.flush()
        elif tag in _CELLS:
            self._text(" | ")
        self._depth -= 1

    def data(self, text: str) -> None:
        if self._unseen:
            return
        if self._level:
            self._heading.append(text)
            self._length += len(text)
            if self._length > _LONGEST_HEADING:
                self._level = 0
                self._text(" ".join("".join(self._heading).split()))
                self._heading, self._length = [], 0
            return
        self._text(text.replace(" ", _KEPT) if self._pre > 0 else _SPACES.sub(" ", text))
        if self._size >= 4 * _BLOCK:
            self.flush()

    def close(self) -> None:
        self._end_heading()

    # --- helpers ---

    def _text(self, text: str) -> None:
        self._block.append(text)
        self._size += len(text)

    def _end_heading(self) -> None:
        level, self._level = self._level, 0
        if not level:
            return
        title = " ".join("".join(self._heading).split())
        self._heading, self._length = [], 0
        self.flush()
        if title:
            self._outline.enter(level, title)


def _is_hidden(attributes: Mapping[str, str]) -> bool:
    if "hidden" in attributes or attributes.get("aria-hidden") == "true":
        return True
    return _HIDDEN.search(attributes.get("style", "")) is not None


def _encoding(path: Path) -> str:
    """By the mark at the beginning, by what the page says of itself where that fits it, else as any text's."""
    found = plain.encoding(path)
    with path.open("rb") as file:
        head = file.read(_SNIFFED)
    said = _SAYS.search(head)
    if said is None or found in ("utf-8-sig", "utf-16", "utf-32"):
        return found
    try:
        meant = codecs.lookup(said[1].decode("ascii", "replace")).name
        meant = _MEANT.get(meant, meant)
        if not meant.startswith(_KNOWN):
            return found
        codecs.getincrementaldecoder(meant)().decode(head, final=False)
    except (LookupError, ValueError):
        return found
    return meant


def _tidy(pieces: list[str]) -> str:
    lines = (line.strip() for line in "".join(pieces).split("\n"))
    return "\n".join(line for line in lines if line.strip("| ")).replace(_KEPT, " ")
