"""XLSX: the values as they were last calculated; formulas are neither shown nor run."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

from openpyxl import load_workbook

from daram.errors import DocumentError
from daram.text.load import LoadLimits, Section
from daram.text.loaders import archive
from daram.text.loaders.table import sections


def load(path: Path, name: str, limits: LoadLimits) -> Iterator[Section]:
    """The rows of each sheet, whose name is their heading."""
    archive.check(path, name, limits, streamed=("xl/worksheets/", "xl/sharedStrings.xml"))
    with path.open("rb") as file:
        try:
            book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
        except Exception as error:
            raise DocumentError(name, f"is damaged, or no Excel file ({type(error).__name__})") from error
        try:
            for sheet in book.worksheets:
                if sheet.sheet_state != "visible":
                    continue
                sheet.reset_dimensions()  # what a file states of its size may be wrong
                rows = ([_text(value) for value in row] for row in sheet.iter_rows(values_only=True))
                try:
                    yield from sections(rows, (sheet.title,))
                except (ValueError, KeyError, TypeError, SyntaxError) as error:
                    raise DocumentError(
                        name, f"the sheet {sheet.title!r} is damaged ({type(error).__name__})"
                    ) from error
        finally:
            book.close()


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
