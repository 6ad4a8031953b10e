"""Sections into chunks: by paragraph and sentence, with overlap, and with the place of each.

The splitting is that of semantic-text-splitter: the largest units of text that fit, of ever smaller kinds (lines,
sentences, words, characters by Unicode's rules).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal

import msgspec

from daram.errors import InvalidInput, MissingExtra
from daram.text.load import Section
from daram.text.tokens import estimate

Unit = Literal["characters", "tokens"]
_BETWEEN: Final = "\n\n"


class Chunk(msgspec.Struct, frozen=True, omit_defaults=True):
    """A passage of a document. ``start`` and ``end`` count characters of the document's whole text, which is its
    sections with a blank line between each two."""

    text: str
    start: int
    end: int
    page: int | None = None
    heading: tuple[str, ...] = ()


class Chunking(msgspec.Struct, frozen=True, kw_only=True):
    """How a document is cut: ``size`` is the most that a chunk holds, ``overlap`` what two neighbours share."""

    size: int = 1000
    overlap: int = 150
    unit: Unit = "characters"

    def check(self) -> None:
        """Raises ``InvalidInput``."""
        if not 50 <= self.size <= 20_000:
            raise InvalidInput("size", f"must be between 50 and 20,000 {self.unit}, not {self.size:,}")
        if not 0 <= self.overlap <= self.size // 2:
            raise InvalidInput("overlap", f"must be between 0 and half of the size, not {self.overlap:,}")


def chunks(sections: Iterable[Section], how: Chunking = Chunking()) -> Iterator[Chunk]:
    """The chunks of a document in reading order. No chunk crosses a page or a heading, but short sections under one
    heading on one page become one."""
    chunker = Chunker(how)
    for section in sections:
        yield from chunker.feed(section)
    yield from chunker.end()


class Chunker:
    """``chunks`` for sections that come one by one."""

    def __init__(self, how: Chunking = Chunking()) -> None:
        how.check()
        try:
            from semantic_text_splitter import TextSplitter
        except ImportError as error:
            raise MissingExtra("Documents", "documents") from error
        if how.unit == "tokens":
            self._splitter = TextSplitter.from_callback(estimate, how.size, overlap=how.overlap)
        else:
            self._splitter = TextSplitter(how.size, overlap=how.overlap)
        self._most = how.size if how.unit == "characters" else how.size * 2
        self._place = 0
        self._last: Section | None = None

    def feed(self, section: Section) -> list[Chunk]:
        """The chunks that are complete now. Neighbours of one place wait, as long as they fit into one together."""
        last = self._last
        if (
            last is not None
            and (last.page, last.heading) == (section.page, section.heading)
            and len(last.text) + len(section.text) + len(_BETWEEN) <= self._most
        ):
            self._last = Section(last.text + _BETWEEN + section.text, last.page, last.heading)
            return []
        self._last = section
        return [] if last is None else self._cut(last)

    def end(self) -> list[Chunk]:
        """The last chunks."""
        last, self._last = self._last, None
        return [] if last is None else self._cut(last)

    def _cut(self, section: Section) -> list[Chunk]:
        place = self._place
        self._place += len(section.text) + len(_BETWEEN)
        return [
            Chunk(text, place + start, place + start + len(text), section.page, section.heading)
            for start, text in self._splitter.chunk_indices(section.text)
        ]
