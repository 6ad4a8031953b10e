"""CSV and TSV: each row as "column: value" lines, so that a chunk says what its values mean."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from daram.errors import DocumentError
from daram.text.load import LoadLimits, Section
from daram.text.loaders.plain import encoding

_SAMPLE: Final = 1 << 16
_ROWS: Final = 50  # rows of one section
_WIDEST: Final = 1000  # columns that are read
csv.field_size_limit(1 << 24)


def load(path: Path, name: str, limits: LoadLimits) -> Iterator[Section]:
    """Groups of rows. The first row gives the columns their names."""
    with path.open(encoding=encoding(path), errors="replace", newline="") as file:
        sample = file.read(_SAMPLE)
        file.seek(0)
        try:
            dialect: type[csv.Dialect] = csv.Sniffer().sniff(sample, delimiters=",;\t|")
        except csv.Error:
            dialect = csv.excel_tab if name.lower().endswith(".tsv") else csv.excel
        rows = csv.reader((line.replace("\x00", "") for line in file), dialect)
        try:
            yield from sections(rows, ())
        except csv.Error as error:
            raise DocumentError(name, f"line {rows.line_num} is no CSV ({error})") from error


def sections(rows: Iterable[Sequence[str]], heading: tuple[str, ...]) -> Iterator[Section]:
    """Groups of rows as text."""
    rows = (row for row in rows if any(cell.strip() for cell in row))
    names = [cell.strip() for cell in next(iter(rows), ())][:_WIDEST]
    count = 0
    while group := list(itertools.islice(rows, _ROWS)):
        yield Section("\n".join(_line(names, row) for row in group), heading=heading)
        count += 1
    if not count:  # the one row there is
        yield Section(" | ".join(name for name in names if name), heading=heading)


def _line(names: Sequence[str], row: Sequence[str]) -> str:
    pairs = itertools.zip_longest(names, row[:_WIDEST], fillvalue="")
    values = ((name, " ".join(value.split())) for name, value in pairs)
    return " | ".join(f"{name}: {value}" if name else value for name, value in values if value)
