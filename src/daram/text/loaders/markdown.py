"""Markdown: a section for each heading (CommonMark 0.31: ATX and setext headings, fenced code)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from daram.text.load import LoadLimits, Section
from daram.text.loaders.plain import lines

_ATX: Final = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
_SETEXT: Final = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})")
_BLOCK: Final = 1 << 16


class Outline:
    """The path of headings at the present place."""

    def __init__(self) -> None:
        self._levels: list[tuple[int, str]] = []

    def enter(self, level: int, title: str) -> None:
        """A heading of this level begins (1 is the outermost)."""
        while self._levels and self._levels[-1][0] >= level:
            self._levels.pop()
        self._levels.append((level, title))

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(title for _, title in self._levels)


def load(path: Path, name: str, limits: LoadLimits) -> Iterator[Section]:
    """The text under each heading, without the heading itself."""
    outline = Outline()
    block: list[str] = []
    size = 0
    fence = ""
    for line in lines(path):
        bare = line.rstrip("\n")
        opened = _FENCE.match(bare)
        if opened and not fence:
            fence = opened[1]
        elif opened and opened[1][0] == fence[0] and len(opened[1]) >= len(fence) and not bare[opened.end() :].strip():
            fence = ""
        elif not fence:
            heading = _ATX.match(bare)
            under = _SETEXT.match(bare)
            if heading:
                yield Section("".join(block), heading=outline.path)
                block, size = [], 0
                outline.enter(len(heading[1]), _title(bare[heading.end() :]))
                continue
            if under and _ends_in_a_line_alone(block):
                title = block.pop().strip()
                yield Section("".join(block), heading=outline.path)
                block, size = [], 0
                outline.enter(1 if under[1][0] == "=" else 2, title)
                continue
        block.append(line)
        size += len(line)
        if (size >= _BLOCK and not fence and not bare.strip()) or size >= 4 * _BLOCK:
            yield Section("".join(block), heading=outline.path)
            block, size = [], 0
    yield Section("".join(block), heading=outline.path)


def _title(text: str) -> str:
    """What stands behind the marks of a heading, without the marks that may close it."""
    title = text.strip(" \t")
    opened = title.rstrip("#")
    return title if opened and opened[-1] not in " \t" else opened.rstrip(" \t")


def _ends_in_a_line_alone(block: list[str]) -> bool:
    return bool(block) and 0 < len(block[-1].strip()) < 200 and (len(block) < 2 or not block[-2].strip())
