"""Vectors for passages: as stored bytes, and for those that have none of the present model, in the background."""

from __future__ import annotations

import logging
import sys
from array import array
from collections.abc import Sequence
from typing import Final

from daram.errors import ModelError
from daram.knowledge.base import HOUSE, Library
from daram.knowledge.leases import Lease
from daram.llm.base import Embedder

log = logging.getLogger(__name__)

_BATCH: Final = 100
_LEASE: Final = 60.0


def name_of(embedder: Embedder) -> str:
    """What vectors are stored under: vectors of another model, or of another length, cannot be compared."""
    return f"{embedder.name}:{embedder.dimensions}"


async def vectors(embedder: Embedder, texts: Sequence[str]) -> list[bytes]:
    """The vectors of texts as a store takes them: 32-bit floats, little-endian. Raises a child of ``ModelError``."""
    return [packed(vector) for vector in await embedder.embed(texts)]


def packed(vector: Sequence[float]) -> bytes:
    """One vector as bytes."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


async def embed_missing(store: Library, embedder: Embedder, *, at_most: int | None = None) -> int:
    """Give the passages that have no vector of this model one; returns how many. One process at a time does it.

    Search goes on meanwhile, by words for what has no vector yet. Where the model fails, the rest waits for the next
    call; ``at_most``: so many passages, about.
    """
    lease = await Lease.take(store, HOUSE, "embedding", _LEASE)
    if lease is None:
        return 0
    done = 0
    try:
        async with lease.held():
            name = name_of(embedder)
            last: object = None
            while at_most is None or done < at_most:
                batch = await store.unembedded(name, limit=_BATCH)
                if not batch or batch[0] == last:  # the last round changed nothing: no use in another
                    break
                last = batch[0]
                made = await vectors(embedder, [passage.text for passage in batch])
                await store.put_vectors(name, list(zip(batch, made, strict=True)))
                done += len(batch)
    except ModelError as error:
        log.warning("the embedding model %s failed, passages wait for their vectors: %s", embedder.name, error)
    finally:
        await lease.release()
    return done
