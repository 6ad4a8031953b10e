"""Plain text: paragraphs, in groups, read piece by piece in whatever encoding it is."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from daram.text.load import LoadLimits, Section

_BLOCK: Final = 1 << 16  # characters of one section, about
_LONGEST_LINE: Final = 1 << 16  # characters that are read of one line at once
_SNIFFED: Final = 1 << 20  # bytes from which the encoding is told
_LOOKED_AT: Final = 1 << 12  # bytes of them among which zeros are counted

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding(path: Path) -> str:
    """By the byte order mark, or where its zeros stand; else UTF-8, the Korean code page, or Windows' Western one: the
    first that fits."""
    with path.open("rb") as file:
        head = file.read(_SNIFFED)
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    zeros = [head[start:_LOOKED_AT:2].count(0) for start in (0, 1)]
    if max(zeros) > 10 * min(zeros) and 3 * max(zeros) > len(head[:_LOOKED_AT:2]):
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    for name in ("utf-8", "cp949"):
        try:
            codecs.getincrementaldecoder(name)().decode(head, final=False)
        except UnicodeDecodeError:
            continue
        return name
    return "cp1252"


def lines(path: Path) -> Iterator[str]:
    """The lines with their ends; one that is very long comes in parts. What cannot be decoded becomes U+FFFD."""
    with path.open(encoding=encoding(path), errors="replace", newline=None) as file:
        while line := file.readline(_LONGEST_LINE):
            yield line


def load(path: Path, name: str, limits: LoadLimits) -> Iterator[Section]:
    """Groups of paragraphs."""
    block: list[str] = []
    size = 0
    for line in lines(path):
        block.append(line)
        size += len(line)
        # Ends at a blank line where there is one in good time.
        if size >= _BLOCK * 2 or (size >= _BLOCK and not line.strip()):
            yield Section("".join(block))
            block, size = [], 0
    yield Section("".join(block))
