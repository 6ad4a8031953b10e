"""Texts made fit to be stored: anything may come out of a model or a framework, not any text may go into a store."""

from __future__ import annotations

import re

_BAD = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT = "\ufffd"


def clean_text(text: str) -> str:
    """The text with NUL and lone surrogates replaced by U+FFFD, halves of a pair that stand together joined."""
    if not _BAD.search(text):
        return text
    return text.replace("\x00", _REPLACEMENT).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
