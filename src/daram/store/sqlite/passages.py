"""The writes on documents and their passages: plain functions that run inside the writer's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import apsw
import msgspec

from daram import ids
from daram.codec import encode_attributes, to_micros
from daram.errors import NotFound
from daram.model import Unset
from daram.store import conflicts
from daram.store.document_rows import to_document
from daram.store.documents import Document, Passage, Scope, Unembedded
from daram.store.documents_engine import MAX_SEQ, STAGED_SECONDS, DocumentRef, expected
from daram.store.sqlite import vectors
from daram.store.sqlite.rows import Row, fetch, one, run, value
from daram.text.analyzer import index_terms

SHIFT = 24
# So many passages one transaction removes, and so many documents of a collection.
STEP = 200


class Indexed(NamedTuple):
    """A passage with its terms, which are made before the writer takes it."""

    passage: Passage
    terms: str


def scope_term(scope: Scope) -> str:
    """The term that all passages of a collection have: no term of the analyzer has a "§"."""
    return "§d" + ids.conversation_key(*scope).hex()


def prepare(scope: Scope, passages: Sequence[Passage]) -> list[Indexed]:
    """Passages with their terms."""
    fence = scope_term(scope)
    return [Indexed(passage, f"{fence} {index_terms(passage.text)}") for passage in passages]


def find(db: apsw.Connection, ref: DocumentRef) -> Row:
    """The row of a document. Raises ``NotFound``."""
    row = one(db, "find_document", ref)
    if row is None:
        raise NotFound("document", ref.id)
    return row


def put(db: apsw.Connection, now: int, document: Document, expect: str | Unset | None) -> Document:
    """Store what is said of a document; what its passages say of it stays."""
    row = one(db, "find_document", (document.owner, document.collection, document.id))
    if not expected(None if row is None else to_document(row), expect):
        raise conflicts.document_not_as_expected(document.id)
    if row is None:
        return _store(db, now, now, document, None, None, 0, None)
    return _store(db, now, row[16], document, row[12], row[13], row[14], row[18])


def _store(
    db: apsw.Connection,
    now: int,
    created_at: int,
    document: Document,
    embedder: str | None,
    revision: str | None,
    passages: int,
    live: int | None,
) -> Document:
    row = (
        document.owner,
        document.collection,
        document.id,
        document.name,
        document.title,
        document.media_type,
        document.source,
        document.digest,
        document.bytes,
        document.state,
        document.error,
        encode_attributes(document.metadata),
        embedder,
        revision,
        passages,
        ids.etag(),
        created_at,
        now,
        live,
    )
    run(db, "put_document", row)
    return to_document(row)


def stage(db: apsw.Connection, now: int, ref: DocumentRef, revision: str, passages: Sequence[Indexed]) -> None:
    """Store passages, and take them into the index: nothing finds what is not of a published revision."""
    if find(db, ref)[13] == revision:
        raise conflicts.revision_is_published(ref.id, revision)
    number = value(db, "staged_revision", (*ref, revision))
    if number is None:
        number = value(db, "insert_revision", (*ref, revision, now))
    base = number << SHIFT
    seqs = [passage.seq for passage, _ in passages] or [0]
    there = {id for id, _ in fetch(db, "passages_between", (base + min(seqs), base + max(seqs), MAX_SEQ))}
    replaced = [base + seq for seq in seqs if base + seq in there]
    lost = _remove(db, replaced)
    length = 0
    for passage, terms in passages:
        id = base + passage.seq
        count = terms.count(" ") + 1
        heading = msgspec.msgpack.encode(passage.heading) if passage.heading else None
        run(db, "put_passage", (id, passage.text, passage.start, passage.end, passage.page, heading, count))
        run(db, "index_passage", (id, terms))
        length += count
    new = [(passage.seq, passage.vector) for passage, _ in passages if passage.vector is not None]
    vectors.add(db, number, 0, new)
    run(db, "add_to_total", (len(passages), length))
    run(db, "touch_revision", (now, len(passages) - len(replaced), len(new) - lost, number))


def publish(db: apsw.Connection, now: int, document: Document, revision: str, expect: str) -> Document:
    """Make a staged revision the one that is found."""
    ref = DocumentRef(document.owner, document.collection, document.id)
    row = find(db, ref)
    if row[15] != expect:
        raise conflicts.document_not_as_expected(ref.id)
    number = row[18] if row[13] == revision else value(db, "staged_revision", (*ref, revision))
    if number is None:
        number = value(db, "insert_revision", (*ref, revision, now))
    embedder = 0 if document.embedder is None else vectors.embedder_number(db, document.embedder)
    counts = one(db, "publish_revision", (embedder, number))
    assert counts is not None
    is_whole = embedder and counts[0] == counts[1] > 0
    run(db, "kill_revisions", (*ref, number))
    sweep(db)
    return _store(db, now, row[16], document, document.embedder if is_whole else None, revision, counts[0], number)


def load(db: apsw.Connection, now: int, document: Document, expect: str | None) -> Document:
    """Store a document with its times, and make the revision that it names the one that is found."""
    ref = DocumentRef(document.owner, document.collection, document.id)
    row = one(db, "find_document", ref)
    if (None if row is None else row[15]) != expect:
        raise conflicts.document_not_as_expected(ref.id)
    assert document.created_at is not None
    assert document.updated_at is not None
    made, changed = to_micros(document.created_at), to_micros(document.updated_at)
    if row is not None and row[13] == document.revision is not None:
        return _store(db, changed, made, document, row[12], row[13], row[14], row[18])
    if document.revision is None:
        run(db, "kill_revisions", (*ref, 0))
        sweep(db)
        return _store(db, changed, made, document, None, None, 0, None)
    number = value(db, "staged_revision", (*ref, document.revision))
    if number is None:
        number = value(db, "insert_revision", (*ref, document.revision, now))
    embedder = 0 if document.embedder is None else vectors.embedder_number(db, document.embedder)
    counts = one(db, "publish_revision", (embedder, number))
    assert counts is not None
    if counts[0] != document.passages:
        raise conflicts.passages_are_missing(ref.id, document.passages, counts[0])
    is_whole = embedder and counts[0] == counts[1] > 0
    run(db, "kill_revisions", (*ref, number))
    sweep(db)
    by = document.embedder if is_whole else None
    return _store(db, changed, made, document, by, document.revision, counts[0], number)


def discard(db: apsw.Connection, ref: DocumentRef, revision: str) -> None:
    """Give up what was staged."""
    run(db, "kill_staged", (*ref, revision))
    sweep(db)


def delete(db: apsw.Connection, ref: DocumentRef) -> None:
    """Delete a document; what of its passages is too much for one transaction is removed later, found by nothing."""
    if one(db, "delete_document", ref) is None:
        raise NotFound("document", ref.id)
    run(db, "kill_revisions", (*ref, 0))
    sweep(db)


def delete_some(db: apsw.Connection, scope: Scope) -> int:
    """Delete some documents of a collection; returns how many."""
    found = fetch(db, "collection_documents", (*scope, STEP))
    for (id,) in found:
        run(db, "delete_document", (*scope, id))
        run(db, "kill_revisions", (*scope, id, 0))
    sweep(db)
    return len(found)


def delete_owner(db: apsw.Connection, owner: str) -> None:
    """Delete all documents of an owner."""
    run(db, "delete_owner_documents", (owner,))
    run(db, "kill_owner_revisions", (owner,))


def purge(db: apsw.Connection, now: int) -> None:
    """Give up what was staged a day ago and never published."""
    run(db, "kill_old_staged", (now - STAGED_SECONDS * 1_000_000,))


def sweep(db: apsw.Connection) -> bool:
    """Remove some passages of revisions that nobody sees any more; returns whether there are more."""
    left = STEP
    while left:
        number = value(db, "dead_revision")
        if number is None:
            return False
        base = number << SHIFT
        found = fetch(db, "passages_between", (base, base + MAX_SEQ, left))
        _remove(db, [id for id, _ in found], with_pages=False)
        if len(found) < left:
            run(db, "delete_vector_pages", (number,))
            run(db, "delete_revision", (number,))
            left -= max(1, len(found))
        else:
            left = 0
    return value(db, "dead_revision") is not None


def _remove(db: apsw.Connection, numbers: Sequence[int], *, with_pages: bool = True) -> int:
    """Remove passages; returns how many had a vector. ``with_pages``: also out of the pages of vectors."""
    if not numbers:
        return 0
    length = 0
    for id in numbers:
        ((_, count),) = fetch(db, "passages_between", (id, id, 1))
        length += count
        run(db, "delete_passage", (id,))
        run(db, "unindex_passage", (id,))
    lost = vectors.remove(db, numbers, with_pages=with_pages)
    run(db, "passages_removed", (len(numbers), length))
    return lost


def put_vectors(db: apsw.Connection, _now: int, embedder: str, given: Sequence[tuple[Unembedded, bytes]]) -> None:
    """Give published passages vectors; what is gone is left out."""
    by_document: dict[tuple[DocumentRef, str], dict[int, bytes]] = {}
    for place, vector in given:
        ref = DocumentRef(*place.scope, place.document)
        by_document.setdefault((ref, place.revision), {})[place.seq] = vector
    for (ref, revision), of_document in by_document.items():
        row = one(db, "find_document", ref)
        if row is None or row[13] != revision:
            continue
        number = row[18]
        base = number << SHIFT
        there = [
            (seq, vector)
            for seq, vector in of_document.items()
            if fetch(db, "passages_between", (base + seq,) * 2 + (1,))
        ]
        by = vectors.embedder_number(db, embedder)
        vectors.remove(db, [base + seq for seq, _ in there])
        vectors.add(db, number, by, there)
        if value(db, "vectors_by", (number, by, by)) == row[14]:
            run(db, "set_embedder", (embedder, *ref))
        elif row[12] is not None:
            run(db, "set_embedder", (None, *ref))
