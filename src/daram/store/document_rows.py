"""Documents and passages as rows of a table: what the engines that keep them in SQL have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from daram.codec import decode_attributes, from_micros
from daram.store.documents import Document, Passage

_heading: Final = msgspec.msgpack.Decoder(tuple[str, ...])


def to_document(row: Sequence[Any]) -> Document:
    """A document of a row with its columns in their order, times in µs and metadata packed; what is behind is left."""
    return Document(
        owner=row[0],
        collection=row[1],
        id=row[2],
        name=row[3],
        title=row[4],
        media_type=row[5],
        source=row[6],
        digest=row[7],
        bytes=row[8],
        state=row[9],
        error=row[10],
        metadata=decode_attributes(row[11]),
        embedder=row[12],
        revision=row[13],
        passages=row[14],
        etag=row[15],
        created_at=from_micros(row[16]),
        updated_at=from_micros(row[17]),
    )


def to_passage(seq: int, row: Sequence[Any]) -> Passage:
    """A passage of a row of its text, beginning, end, page and packed headings."""
    text, begins, ends, page, heading = row
    return Passage(
        seq=seq,
        text=text,
        start=begins,
        end=ends,
        page=page,
        heading=() if heading is None else _heading.decode(heading),
    )
