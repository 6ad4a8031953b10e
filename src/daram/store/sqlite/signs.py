"""The signs of vectors as a search looks at them: read once, and kept in memory while the database says they hold."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from daram.store.documents import Scope
from daram.store.sqlite.rows import fetch, value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHIFT = 24
PAGE = 8  # bits of seq within a page
# So many passages are looked at together; so many bytes of signs are kept (about 900,000 passages of 512 dimensions).
_TOGETHER = 1 << 16
_KEPT = 64 << 20


class Piece(NamedTuple):
    """Numbers of passages, and their bits: a row for each eight bytes (or each byte), a column for each passage."""

    ids: NDArray[np.int64]
    bits: NDArray[Any]

    @property
    def size(self) -> int:
        """In bytes."""
        return int(self.ids.nbytes + self.bits.nbytes)


_Key = tuple[tuple[Scope, ...], int, int]


class _Kept(NamedTuple):
    mark: int
    pieces: list[Piece]
    size: int


class SignPages:
    """Reads them for one database, for all its readers; those of the collections that were searched last are kept.

    They are those of the moment of the reader: a mark in the database changes with whatever changes them, and is read
    in the same transaction.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._gate = threading.Lock()

    def read(self, db: apsw.Connection, scopes: Sequence[Scope], embedder: int, width: int) -> Iterator[Piece]:
        """The pieces of some collections; ``width``: bytes of one passage."""
        mark = value(db, "near_mark")
        key = (tuple(scopes), embedder, width)
        with self._gate:
            kept = self._kept.get(key)
            if kept is not None and kept.mark == mark:
                self._kept.move_to_end(key)
        if kept is not None and kept.mark == mark:
            yield from kept.pieces
            return
        pieces: list[Piece] = []
        size = 0
        for piece in _pieces(db, scopes, embedder, width):
            size += piece.size
            if size <= _KEPT:
                pieces.append(piece)
            yield piece
        self._keep(key, _Kept(mark, pieces, size))

    def _keep(self, key: _Key, kept: _Kept) -> None:
        with self._gate:
            self._kept.pop(key, None)
            if kept.size <= _KEPT:
                self._kept[key] = kept
            while sum(other.size for other in self._kept.values()) > _KEPT:
                self._kept.popitem(last=False)


def _pieces(db: apsw.Connection, scopes: Sequence[Scope], embedder: int, width: int) -> Iterator[Piece]:
    """Some ten thousands of passages at a time."""
    import numpy as np

    bases: list[int] = []
    slots: list[bytes] = []
    packed: list[bytes] = []
    size = 0

    def together() -> Piece:
        ids = np.repeat(np.array(bases, np.int64), [len(some) for some in slots])
        ids += np.frombuffer(b"".join(slots), np.uint8)
        rows = np.frombuffer(b"".join(packed), np.uint8).reshape(-1, width)
        return Piece(ids, np.ascontiguousarray((rows if width % 8 else rows.view(np.uint64)).T))

    for scope in scopes:
        for revision, page, some, bits in fetch(db, "near_pages", (*scope, width, embedder, embedder)):
            bases.append((revision << SHIFT) + (page << PAGE))
            slots.append(some)
            packed.append(bits)
            size += len(some)
            if size >= _TOGETHER:
                yield together()
                bases, slots, packed, size = [], [], [], 0
    if size:
        yield together()
