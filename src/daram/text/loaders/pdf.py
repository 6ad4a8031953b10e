"""PDF: a section for each page."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pypdf
from pypdf.errors import FileNotDecryptedError, LimitReachedError, PyPdfError

from daram.errors import DocumentError, DocumentTooLarge
from daram.text.load import LoadLimits, Section

# A word that was parted at the end of a line.
_PARTED: Final = re.compile(r"([a-z])-\n([a-z])")
logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns of every small fault of a file


def load(path: Path, name: str, limits: LoadLimits) -> Iterator[Section]:
    """The text of each page. A page that cannot be read is left out; a document of which none can is an error."""
    with path.open("rb") as file:
        try:
            reader = pypdf.PdfReader(file)
            if reader.is_encrypted and not reader.decrypt(""):
                raise DocumentError(name, "is encrypted; save it without a password")
            count = len(reader.pages)
        except DocumentError:
            raise
        except Exception as error:
            raise DocumentError(name, f"is damaged, or no PDF ({type(error).__name__})") from error
        if count > limits.pages:
            raise DocumentTooLarge(name, f"{count:,} pages, but at most {limits.pages:,} are taken")
        unread = 0
        for number in range(count):
            try:
                text = reader.pages[number].extract_text()
            except LimitReachedError as error:
                raise DocumentTooLarge(name, f"page {number + 1} unpacks to too much") from error
            except FileNotDecryptedError as error:
                raise DocumentError(name, "is encrypted; save it without a password") from error
            except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
                unread += 1
                continue
            yield Section(_PARTED.sub(r"\1\2", text), number + 1)
            # What pypdf read of a page stays in its cache: a document of 10,000 pages would stay in memory.
            reader.resolved_objects.clear()
        if count and unread == count:
            raise DocumentError(name, "is damaged: none of its pages can be read")
