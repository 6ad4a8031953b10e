"""CSV and TSV: each row as "column: value" lines, so that a chunk says what its values mean."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TextIO

from daram.errors import DocumentError, DocumentTooLarge
from daram.text.load import LoadLimits, Section
from daram.text.loaders.plain import encoding

_SAMPLE: Final = 1 << 16
_SAMPLED: Final = 50  # rows
_MARKS: Final = (",", ";", "\t", "|")
_ROWS: Final = 50  # rows of one section
_BLOCK: Final = 1 << 16  # characters of one section, about
_WIDEST: Final = 1000  # columns that are read
_NAME: Final = 200  # characters of a column's name, which each of its values repeats
_LONGEST_LINE: Final = 1 << 24  # characters
csv.field_size_limit(_LONGEST_LINE)


def load(path: Path, name: str, limits: LoadLimits) -> Iterator[Section]:
    """Groups of rows. The first row gives the columns their names."""
    with path.open(encoding=encoding(path), errors="replace", newline="") as file:
        mark = _mark(file.read(_SAMPLE), "\t" if name.lower().endswith(".tsv") else ",")
        file.seek(0)
        rows = csv.reader(_lines(file, name), delimiter=mark, skipinitialspace=mark != "\t")
        try:
            yield from sections(rows, ())
        except csv.Error as error:
            raise DocumentError(name, f"line {rows.line_num} is no CSV ({error})") from error


def _lines(file: TextIO, name: str) -> Iterator[str]:
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            raise DocumentTooLarge(name, f"line {number:,} has more than {_LONGEST_LINE:,} characters")
        yield line.replace("\x00", "")


def _mark(sample: str, usual: str) -> str:
    """What parts the columns: what makes the most rows equally wide. (``csv.Sniffer`` can take minutes over a text that
    was made for it.)"""
    best, found = 0, usual
    for mark in (usual, *_MARKS):
        try:
            rows = list(itertools.islice(csv.reader(sample.splitlines(), delimiter=mark), _SAMPLED))
        except csv.Error:
            continue
        widths = Counter(len(row) for row in rows if len(row) > 1)
        width, count = max(widths.items(), key=lambda each: each[1], default=(0, 0))
        if count * min(width, 3) > best:
            best, found = count * min(width, 3), mark
    return found


def sections(rows: Iterable[Sequence[str]], heading: tuple[str, ...]) -> Iterator[Section]:
    """Groups of rows as text."""
    rows = (row for row in rows if any(cell.strip() for cell in row))
    first = [cell.strip() for cell in next(iter(rows), ())][:_WIDEST]
    names = [cell[:_NAME] for cell in first]
    group: list[str] = []
    size, is_one = 0, True
    for row in rows:
        is_one = False
        group.append(_line(names, row))
        size += len(group[-1])
        if len(group) >= _ROWS or size >= _BLOCK:
            yield Section("\n".join(group), heading=heading)
            group, size = [], 0
    if is_one:
        group = [" | ".join(cell for cell in first if cell)]
    yield Section("\n".join(group), heading=heading)


def _line(names: Sequence[str], row: Sequence[str]) -> str:
    pairs = itertools.zip_longest(names, row[:_WIDEST], fillvalue="")
    values = ((name, " ".join(value.split())) for name, value in pairs)
    return " | ".join(f"{name}: {value}" if name else value for name, value in values if value)
