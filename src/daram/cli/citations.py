"""Citations at the terminal: a numbered note for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from daram.cli.common import one_line

if TYPE_CHECKING:
    from daram.model import Message


def notes(message: Message) -> list[str]:
    """The notes below an answer, as ``[1] leave.md, page 3, Leave``."""
    from daram.context.sources import cited

    found = []
    for data in cited(message):
        place = place_words(data.get("page"), data.get("heading") or ())
        name = one_line(data.get("title") or data.get("name"))
        found.append(f"[{data['n']}] {name}" + (f", {place}" if place else ""))
    return found


def place_words(page: int | None, heading: Sequence[str]) -> str:
    """Where in a document: its page, and the headings above."""
    words = [] if page is None else [f"page {page}"]
    if heading:
        words.append(one_line(" > ".join(heading)))
    return ", ".join(words)
