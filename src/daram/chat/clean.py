"""What a model says, made fit to be stored: any text may come out of a model, not any text may go into a store."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from daram.model import Part
from daram.text.clean import clean_text

_BAD_IN_NAMES = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MAX_DEPTH = 30
_MAX_COUNT = 1 << 53


class TextStream:
    """Cleans a text that comes in pieces and cuts it at ``limit`` UTF-8 bytes.

    The first half of a surrogate pair at the end of a piece is kept back: some endpoints cut an emoji in two.
    """

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._half = ""
        self.full = False

    def feed(self, piece: str) -> str:
        """The part of the piece that may be shown and stored; sets ``full`` where something had to be cut."""
        piece = self._half + piece
        self._half = ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            piece, self._half = piece[:-1], piece[-1]
        return self._cut(clean_text(piece))

    def end(self) -> str:
        """What was kept back for a second half that never came."""
        rest, self._half = self._half, ""
        return self._cut(clean_text(rest))

    def _cut(self, text: str) -> str:
        raw = text.encode()
        if len(raw) > self._room:
            self.full = True
            raw = raw[: self._room]
            text = raw.decode(errors="ignore")
        self._room -= len(raw)
        return text


def clean_parts(parts: Sequence[Part], limit: int) -> tuple[tuple[Part, ...], bool]:
    """Parts that may be stored, at most ``limit`` bytes of them; and whether all that was said is in them."""
    kept = []
    whole = True
    for part in parts:
        clean = Part(type=_name(part.type, 64) or "unknown", id=_name(part.id, 128), data=_json(part.data, 0))
        limit -= len(msgspec.msgpack.encode(clean))
        if limit < 0:
            whole = False
            break
        kept.append(clean)
    return tuple(kept), whole


def clean_usage(usage: Mapping[str, Any] | None) -> dict[str, int] | None:
    """The counters that are counters."""
    if not isinstance(usage, Mapping):
        return None
    return {
        name: value
        for key, value in usage.items()
        if (name := _name(key, 64)) and type(value) is int and 0 <= value <= _MAX_COUNT
    } or None


def clean_name(value: str | None) -> str | None:
    """A model's name without control characters, at most 256 characters; None where nothing is left."""
    return _name(value, 256)


def _name(value: object, limit: int) -> str | None:
    return (_BAD_IN_NAMES.sub("", value)[:limit] or None) if isinstance(value, str) else None


def _json(value: Any, depth: int) -> Any:
    """The value as JSON that can be stored: what cannot be said becomes None or a string."""
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Mapping):
        return {clean_text(str(k)): _json(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_json(v, depth + 1) for v in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 64 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return clean_text(str(value))
