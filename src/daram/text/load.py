"""Documents as text: one function over the loaders of each kind, with the place of every piece.

A loader is a generator, so that a long document never stands in memory as a whole. What a file holds is not trusted:
archives are measured before they are unpacked, formulas and scripts are left out and never run. A parser may still
hang or eat memory on a file that was made for it: ``daram.knowledge.extract`` runs these loaders in a process of its
own, with bounds.
"""

from __future__ import annotations

import importlib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

import msgspec

from daram.errors import DocumentError, DocumentTooLarge, MissingExtra, UnsupportedDocument


class Section(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of a document's text, in reading order.

    ``page`` counts from 1 (a page of a PDF, a slide); None where the format has none. ``heading`` is the path of the
    headings above it, the outermost first (a sheet's name, a chapter, a section).
    """

    text: str
    page: int | None = None
    heading: tuple[str, ...] = ()


class LoadLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one document: ``file`` and ``unpacked`` in bytes, ``text`` in characters, ``pages``."""

    file: int = 1 << 30
    unpacked: int = 1 << 30
    whole: int = 64 << 20
    """For the formats that no library reads piece by piece (DOCX, PPTX): bytes of one of their parts."""
    text: int = 1_000_000_000
    pages: int = 20_000


class Loader(Protocol):
    """What a module of ``daram.text.loaders`` has."""

    def load(self, path: Path, name: str, limits: LoadLimits) -> Iterator[Section]: ...


# Suffix, media type, module.
KINDS: Final = (
    (".txt", "text/plain", "plain"),
    (".text", "text/plain", "plain"),
    (".log", "text/plain", "plain"),
    (".rst", "text/x-rst", "plain"),
    (".md", "text/markdown", "markdown"),
    (".markdown", "text/markdown", "markdown"),
    (".html", "text/html", "html"),
    (".htm", "text/html", "html"),
    (".xhtml", "application/xhtml+xml", "html"),
    (".csv", "text/csv", "table"),
    (".tsv", "text/tab-separated-values", "table"),
    (".xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "sheet"),
    (".docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", "word"),
    (".pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation", "slides"),
    (".pdf", "application/pdf", "pdf"),
)
# What a file that is called a text may be instead.
_NO_TEXTS: Final = (
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a zip archive, or a document of Office"),
    (bytes.fromhex("d0cf11e0a1b11ae1"), "a document of an old Office"),
    (b"\x89PNG\r\n", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"\x1f\x8b", "compressed"),
    (b"\x7fELF", "a program"),
)
_TEXTS: Final = ("plain", "markdown", "table", "html")
_LONGEST: Final = 1 << 17  # characters of a section: the time to cut one grows with the square of its length
SUFFIXES: Final = tuple(suffix for suffix, _, _ in KINDS)


def kind_of(name: str, media_type: str | None = None) -> str:
    """The loader for a file: by the media type where one is given and known, else by the name's suffix.

    Raises ``UnsupportedDocument`` with the list of what can be read.
    """
    given = (media_type or "").partition(";")[0].strip().lower()
    # A server that does not know better says one of these of everything.
    if given not in ("", "text/plain", "application/octet-stream", "binary/octet-stream"):
        for _, known, module in KINDS:
            if known == given:
                return module
    suffix = Path(name).suffix.lower()
    for known, _, module in KINDS:
        if known == suffix:
            return module
    if given == "text/plain":
        return "plain"
    raise UnsupportedDocument(name, f"no loader reads this kind of document; these are read: {', '.join(SUFFIXES)}")


def load(
    path: Path, *, name: str | None = None, media_type: str | None = None, limits: LoadLimits = LoadLimits()
) -> Iterator[Section]:
    """The sections of a document, none of them empty. ``name``: what the user calls the file (default: the path's).

    Raises ``UnsupportedDocument``, ``DocumentTooLarge``, ``DocumentError`` (broken, encrypted), ``MissingExtra``.
    """
    name = name or path.name
    module = kind_of(name, media_type)
    size = path.stat().st_size
    if size > limits.file:
        raise DocumentTooLarge(name, f"{size:,} bytes, but at most {limits.file:,} are taken")
    if not size:
        raise DocumentError(name, "is empty")
    if module in _TEXTS:
        _check_text(path, name)
    try:
        loader: Loader = importlib.import_module(f"daram.text.loaders.{module}")
    except ImportError as error:
        raise MissingExtra(f"Reading {Path(name).suffix or media_type} files", "documents") from error
    return _bounded(loader.load(path, name, limits), name, limits)


def _check_text(path: Path, name: str) -> None:
    with path.open("rb") as file:
        head = file.read(16)
    for mark, what in _NO_TEXTS:
        if head.startswith(mark):
            raise DocumentError(name, f"is {what}, although it is called a text; name it as what it is")


def _bounded(sections: Iterator[Section], name: str, limits: LoadLimits) -> Iterator[Section]:
    characters = 0
    for section in sections:
        text = clean(section.text)
        if not text:
            continue
        characters += len(text)
        if characters > limits.text:
            raise DocumentTooLarge(name, f"more than {limits.text:,} characters of text")
        if section.page is not None and section.page > limits.pages:
            raise DocumentTooLarge(name, f"more than {limits.pages:,} pages")
        heading = tuple(clean(part)[:200] for part in section.heading)
        for piece in _pieces(text):
            yield Section(piece, section.page, heading)


def _pieces(text: str) -> Iterator[str]:
    """A text in parts that are cheap to hold, parted between lines or words where there are any."""
    while len(text) > _LONGEST:
        end = max(text.rfind("\n", _LONGEST // 2, _LONGEST), text.rfind(" ", _LONGEST // 2, _LONGEST))
        end = _LONGEST if end < 0 else end
        yield text[:end].rstrip()
        text = text[end:].lstrip()
    yield text


# NUL, which PostgreSQL cannot keep, and the other controls but the ends of lines and tabs.
_CONTROLS: Final = {code: None for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


def clean(text: str) -> str:
    """The text as it can be stored: ends of lines as ``\\n``, no controls, no lone surrogates, nothing around it; in
    normal form C, since a Mac writes Korean in parts that models and people do not know again."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0c", "\n").translate(_CONTROLS)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
    return text.strip()
