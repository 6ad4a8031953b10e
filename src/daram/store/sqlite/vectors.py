"""Vectors of passages: their exact values, and one bit of each number by which the nearest are looked for.

The sign of each number says nearly as much of a vector as the number: the Hamming distance of the bits finds a few
hundred candidates, and the exact values of these decide (Yamada, Asai, Hajishirzi 2021; measured in
docs/explanation/retrieval.md).
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Collection, Iterable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import apsw

from daram.errors import Unsupported
from daram.store.documents import Scope
from daram.store.documents_engine import MAX_SEQ, floats
from daram.store.sqlite.rows import fetch, one, run, value
from daram.store.sqlite.signs import PAGE, SHIFT, SignPages

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SLOT = (1 << PAGE) - 1
# So many candidates for each passage that is asked for, and at least.
OVERSAMPLING = 10
CANDIDATES = 200


class _PageKey(NamedTuple):
    revision: int
    embedder: int
    width: int
    page: int


def has_numpy() -> bool:
    """Whether vectors can be searched here."""
    try:
        return find_spec("numpy") is not None
    except ValueError:  # it was taken out of the modules
        return False


def need_numpy() -> None:
    """Raise ``Unsupported`` where vectors cannot be searched."""
    if not has_numpy():
        raise Unsupported(
            'searching vectors needs numpy: pip install "daram[documents]"; a search by words works without it'
        )


def embedder_number(db: apsw.Connection, name: str) -> int:
    """The number of a model, given when it is first seen."""
    found = value(db, "find_embedder", (name,))
    return int(found or value(db, "insert_embedder", (name,)))


def add(db: apsw.Connection, revision: int, embedder: int, vectors: Sequence[tuple[int, bytes]]) -> None:
    """Store vectors of passages (by ``seq``) that have none."""
    pages: dict[_PageKey, list[tuple[int, bytes]]] = {}
    for seq, vector in vectors:
        run(db, "put_vector", ((revision << SHIFT) + seq, embedder, vector))
        bits = bits_of(vector)
        pages.setdefault(_PageKey(revision, embedder, len(bits), seq >> PAGE), []).append((seq & _SLOT, bits))
    for key, new in pages.items():
        slots, bits = one(db, "vector_page", key) or (b"", b"")
        slots += bytes(slot for slot, _ in new)
        run(db, "put_vector_page", (*key, slots, bits + b"".join(packed for _, packed in new)))


def remove(db: apsw.Connection, passages: Iterable[int], *, with_pages: bool = True) -> int:
    """Remove the vectors of passages by their numbers; returns how many there were."""
    count = 0
    pages: dict[_PageKey, set[int]] = {}
    for id in passages:
        row = one(db, "delete_vector", (id,))
        if row is not None:
            count += 1
            key = _PageKey(id >> SHIFT, row[0], _width(row[1]), (id & MAX_SEQ) >> PAGE)
            pages.setdefault(key, set()).add(id & _SLOT)
    for key, gone in pages.items() if with_pages else ():
        slots, bits = one(db, "vector_page", key) or (b"", b"")
        kept = [i for i, slot in enumerate(slots) if slot not in gone]
        if kept:
            left = b"".join(bits[i * key.width : (i + 1) * key.width] for i in kept)
            run(db, "put_vector_page", (*key, bytes(slots[i] for i in kept), left))
        else:
            run(db, "delete_vector_page", key)
    return count


def nearest(
    db: apsw.Connection,
    signs: SignPages,
    scopes: Sequence[Scope],
    vector: array[float],
    embedder: str,
    limit: int,
    among: Collection[int] | None = None,
) -> list[tuple[int, float]]:
    """The numbers of the nearest passages with their cosines, best first; ``among``: of these revisions only."""
    import numpy as np

    by = value(db, "find_embedder", (embedder,))
    if by is None:
        return []
    wanted = np.frombuffer(bits_of(vector.tobytes()), np.uint8)
    numbers: list[NDArray[np.int64]] = []
    distances: list[NDArray[np.uint16]] = []
    for ids, bits in signs.read(db, scopes, by, len(wanted)):
        asked = wanted.view(bits.dtype)[:, None]
        distance = np.bitwise_count(bits ^ asked).sum(axis=0, dtype=np.uint16)
        if among is not None:
            of_these = np.isin(ids >> SHIFT, np.fromiter(among, np.int64, len(among)))
            ids, distance = ids[of_these], distance[of_these]
        numbers.append(ids)
        distances.append(distance)
    if not numbers:
        return []
    all_numbers, all_distances = np.concatenate(numbers), np.concatenate(distances)
    count = max(CANDIDATES, OVERSAMPLING * limit)
    if len(all_numbers) > count:
        all_numbers = all_numbers[np.argpartition(all_distances, count)[:count]]
    stored = fetch(db, "vector_values", (json.dumps(all_numbers.tolist()),))
    same = [(id, exact) for id, exact in stored if len(exact) == 4 * len(vector)]
    exact = np.frombuffer(b"".join(exact for _, exact in same), np.float32).reshape(-1, len(vector))
    cosines = (exact @ np.frombuffer(vector, np.float32)).tolist()
    found = sorted(zip((id for id, _ in same), cosines, strict=True), key=lambda hit: (-hit[1], hit[0]))
    return found[:limit]


def _width(vector_bytes: int) -> int:
    return (vector_bytes // 4 + 7) // 8


def bits_of(vector: bytes) -> bytes:
    """One bit for each number: whether it is positive. Without numpy, so that vectors can be stored where it is not."""
    number = 0
    for x in floats(vector):
        number = number << 1 | (x > 0)
    return number.to_bytes(_width(len(vector)), "big")
