"""Documents: the part of the engine that keeps them and finds their passages.

As in the index of messages (``daram.store.postgres.index``), every term begins with characters made from its
collection's key. The server chooses candidates, by the terms that few passages have or by the signs of vectors; they
are put in order here, by the same BM25 and the same cosine as in the other engines. A search of vectors looks at all
of a collection's: it needs no extension, and what it finds does not depend on the order in which an index was made.
"""

from __future__ import annotations

import builtins
from abc import abstractmethod
from array import array
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from operator import itemgetter, mul
from typing import Any, Final

import msgspec

from daram import ids
from daram.codec import encode_attributes, to_micros
from daram.errors import NotFound
from daram.model import Unset
from daram.store import conflicts
from daram.store.document_rows import to_document, to_passage
from daram.store.documents import Document, Only, Passage, PassageHit, PassageVector, Scope, Unembedded
from daram.store.documents_engine import DocumentRef, DocumentsEngine, floats
from daram.store.postgres.index import COMMON, MAX_BYTES, quoted
from daram.store.postgres.lanes import Row
from daram.store.postgres.pool import Pool
from daram.text.analyzer import Query, index_terms, loose_terms, matches, parse_query
from daram.text.bm25 import Statistics, rank

# So many more candidates than asked for are put in order.
_SPARE: Final = 80
_OVERSAMPLING: Final = 10
_CANDIDATES: Final = 200
# So many passages have the terms that choose, together; of each term so many are looked at to tell how rare it is.
_CHOSEN: Final = 10_000
_PROBED: Final = 300


class PostgresDocuments(DocumentsEngine):
    """The part of ``PostgresStore`` that keeps documents."""

    pool: Pool
    _queries: dict[str, bytes]

    @abstractmethod
    async def _read(self, name: str, *values: Any) -> builtins.list[Row]: ...

    @abstractmethod
    async def _write(self, name: str, *values: Any, repeatable: bool = True) -> builtins.list[Row]: ...

    async def _put_document(self, document: Document, expect: str | Unset | None) -> Document:
        is_any = isinstance(expect, Unset)
        rows = await self._write("put_document", *_columns(document), is_any, None if is_any else expect)
        if not rows:
            raise conflicts.document_not_as_expected(document.id)
        return to_document(rows[0])

    async def _get_document(self, ref: DocumentRef) -> Document:
        rows = await self._read("get_document", *ref)
        if not rows:
            raise NotFound("document", ref.id)
        return to_document(rows[0])

    async def _list_documents(
        self, scope: Scope, limit: int, before: tuple[int, str] | None
    ) -> builtins.list[Document]:
        name = "list_documents" if before is None else "list_documents_before"
        return [to_document(row) for row in await self._read(name, *scope, limit, *(before or ()))]

    async def _unfinished_documents(
        self, limit: int, after: tuple[int, str, str, str] | None
    ) -> builtins.list[Document]:
        rows = await self._read("unfinished_documents", limit, *(after or (-(1 << 63), "", "", "")))
        return [to_document(row) for row in rows]

    async def _stage_passages(self, ref: DocumentRef, revision: str, passages: builtins.list[Passage]) -> None:
        scope = Scope(ref.owner, ref.collection)
        fence = fence_of(scope)
        indexed = [index_terms(passage.text) for passage in passages]
        embedded = [(passage.seq, passage.vector) for passage in passages if passage.vector is not None]
        rows = await self._write(
            "stage_passages",
            *(*ref, revision, place_of(scope)),
            [passage.seq for passage in passages],
            [passage.text for passage in passages],
            [passage.start for passage in passages],
            [passage.end for passage in passages],
            [passage.page for passage in passages],
            [msgspec.msgpack.encode(passage.heading) if passage.heading else None for passage in passages],
            [terms.count(" ") + 1 for terms in indexed],
            [stored_terms(fence, terms) for terms in indexed],
            [seq for seq, _ in embedded],
            [_signs(floats(vector)) for _, vector in embedded],
            [vector for _, vector in embedded],
        )
        if rows[0][0] == "missing":
            raise NotFound("document", ref.id)
        if rows[0][0] == "published":
            raise conflicts.revision_is_published(ref.id, revision)

    async def _publish_document(self, document: Document, revision: str, expect: str) -> Document:
        place = place_of(Scope(document.owner, document.collection))
        values = (*_columns(document), revision, place, document.embedder, expect)
        kind, *row = (await self._write("publish_document", *values))[0]
        if kind == "missing":
            raise NotFound("document", document.id)
        if kind == "conflict":
            raise conflicts.document_not_as_expected(document.id)
        return to_document(tuple(row))

    async def _discard_revision(self, ref: DocumentRef, revision: str) -> None:
        await self._write("discard_revision", *ref, revision)

    async def _delete_document(self, ref: DocumentRef) -> None:
        if not (await self._write("delete_documents", *ref, repeatable=False))[0][0]:
            raise NotFound("document", ref.id)

    async def _delete_collection(self, scope: Scope) -> int:
        return int((await self._write("delete_documents", *scope, None, repeatable=False))[0][0])

    async def _passages(self, ref: DocumentRef, after: int, limit: int) -> builtins.list[Passage]:
        rows = await self._read("passages", *ref, after, limit)
        if not rows:
            raise NotFound("document", ref.id)
        return [to_passage(row[0], row[1:]) for row in rows if row[0] is not None]

    async def _search_passages(
        self, scopes: builtins.list[Scope], query: str, limit: int, any_word: bool, only: Only | None
    ) -> builtins.list[PassageHit]:
        parsed = parse_query(query)
        wanted = loose_terms(parsed)
        if not wanted:
            return []
        among = None if only is None else await self._chosen(scopes, only)
        rows = await self._with_any(scopes, wanted, limit + _SPARE, among)
        if not rows:
            return []
        terms, counts, average, size = rows[0][12:]
        having = dict(zip(terms, counts, strict=True))
        known = [float(having.get(i, 0)) for i in range(len(wanted))]
        # Of very many documents the size is not counted to the end.
        statistics = Statistics(max(size, *known), average, known)
        if not any_word:
            rows = await self._with_all(scopes, parsed, limit + _SPARE, among) or rows
        scores = rank(wanted, [index_terms(row[6]).split() for row in rows], statistics)
        hits = [_hit(row, score) for row, score in zip(rows, scores, strict=True)]
        return sorted(hits, key=_best_first)[:limit]

    async def _with_any(
        self,
        scopes: Sequence[Scope],
        wanted: Sequence[tuple[str, bool]],
        limit: int,
        among: builtins.list[int] | None,
    ) -> builtins.list[Row]:
        asked = [(_term(fence_of(scope), *term), i) for scope in scopes for i, term in enumerate(wanted)]
        queries, terms = map(builtins.list, zip(*asked, strict=True))
        if among is not None:
            return await self._read("passages_with_any_of", queries, terms, among, COMMON, limit)
        probe = max(_PROBED // 30, min(_PROBED, _CHOSEN // len(asked)))
        return await self._read(
            "passages_with_any", *_columns_of(scopes), queries, terms, len(wanted), probe, _CHOSEN, limit
        )

    async def _with_all(
        self, scopes: Sequence[Scope], parsed: Query, limit: int, among: builtins.list[int] | None
    ) -> builtins.list[Row]:
        owners, collections, _ = _columns_of(scopes)
        queries = [_all_words(fence_of(scope), parsed) for scope in scopes]
        while True:
            if among is None:
                rows = await self._read("passages_with_all", owners, collections, queries, limit)
            else:
                rows = await self._read("passages_with_all_of", queries, among, limit)
            found = [row for row in rows if matches(parsed, index_terms(row[6]).split())]
            if found or len(rows) < limit:
                return found
            limit *= 4  # these only had the same character pairs

    async def _chosen(self, scopes: Sequence[Scope], only: Only) -> builtins.list[int]:
        """The published revisions of the documents that are meant."""
        found: builtins.list[int] = []
        for scope in scopes:
            wanted = builtins.list(only[scope]) if scope in only else None
            found += [row[0] for row in await self._read("live_among", *scope, wanted)]
        return found

    async def _nearest_passages(
        self, scopes: builtins.list[Scope], vector: array[float], embedder: str, limit: int, only: Only | None
    ) -> builtins.list[PassageHit]:
        count = max(_CANDIDATES, _OVERSAMPLING * limit)
        if only is None:
            rows = await self._read("near_passages", *_columns_of(scopes), _signs(vector), embedder, count)
        else:
            among = await self._chosen(scopes, only)
            rows = await self._read("near_passages_of", among, _signs(vector), embedder, count)
        cosines = [(-sum(map(mul, vector, floats(row[12]))), row[2], row[5], row) for row in rows]
        return [_hit(row, -cosine) for cosine, _, _, row in sorted(cosines, key=itemgetter(0, 1, 2))[:limit]]

    async def _unembedded(self, embedder: str, limit: int) -> builtins.list[Unembedded]:
        return [
            Unembedded(scope=Scope(*row[:2]), document=row[2], revision=row[3], seq=row[4], text=row[5])
            for row in await self._read("unembedded", embedder, limit)
        ]

    async def _put_vectors(self, embedder: str, vectors: builtins.list[tuple[Unembedded, bytes]]) -> None:
        by_document: dict[tuple[str, str, str, str], dict[int, bytes]] = {}
        for place, vector in vectors:
            by_document.setdefault((*place.scope, place.document, place.revision), {})[place.seq] = vector
        for where, given in by_document.items():
            bits = [_signs(floats(vector)) for vector in given.values()]
            await self._write(
                "put_vectors", *where, embedder, builtins.list(given), bits, builtins.list(given.values())
            )

    async def _scan_documents(self, limit: int, after: tuple[str, str, str] | None) -> builtins.list[Document]:
        return [to_document(row) for row in await self._read("scan_documents", limit, *(after or ("", "", "")))]

    async def _passage_vectors(self, ref: DocumentRef, after: int, limit: int) -> builtins.list[PassageVector]:
        rows = await self._read("vectors_after", *ref, after, limit)
        if not rows:
            raise NotFound("document", ref.id)
        return [PassageVector(seq, by, bytes(vector)) for seq, by, vector in rows if seq is not None]

    async def _load_document(self, document: Document, expect: str | None) -> Document:
        ref = DocumentRef(document.owner, document.collection, document.id)
        assert document.created_at is not None
        assert document.updated_at is not None
        async with self.pool.transaction() as cursor:

            async def run(name: str, *values: Any) -> Row | None:
                await cursor.execute(self._queries[name], values, binary=True)
                return await cursor.fetchone()

            row = await run("put_document", *_columns(document), False, expect)
            if row is None:
                raise conflicts.document_not_as_expected(ref.id)
            loaded = to_document(row)
            if document.revision is None:
                await run("drop_revisions", *ref)
            elif loaded.revision != document.revision:
                place = place_of(Scope(ref.owner, ref.collection))
                values = (*_columns(document), document.revision, place, document.embedder, loaded.etag)
                published = await run("publish_document", *values)
                assert published is not None
                there = to_document(published[1:]).passages
                if there != document.passages:
                    raise conflicts.passages_are_missing(ref.id, document.passages, there)
            times = to_micros(document.created_at), to_micros(document.updated_at)
            done = await run("set_document_times", *ref, *times, document.revision is None)
            assert done is not None
            return to_document(done)


def _columns(document: Document) -> tuple[Any, ...]:
    return (
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
        ids.etag(),
    )


def _hit(row: Row, score: float) -> PassageHit:
    return PassageHit(
        scope=Scope(*row[:2]),
        document=row[2],
        revision=row[11],
        name=row[3],
        title=row[4],
        passage=to_passage(row[5], row[6:11]),
        score=score,
    )


def _best_first(hit: PassageHit) -> tuple[float, str, int]:
    return -hit.score, hit.document, hit.passage.seq


def _columns_of(scopes: Sequence[Scope]) -> tuple[list[str], list[str], list[int]]:
    return (
        [scope.owner for scope in scopes],
        [scope.collection for scope in scopes],
        [place_of(scope) for scope in scopes],
    )


def place_of(scope: Scope) -> int:
    """The collection as a number."""
    return int.from_bytes(ids.conversation_key(*scope)[:8], "big", signed=True)


def fence_of(scope: Scope) -> str:
    """What every term of a collection begins with."""
    return urlsafe_b64encode(ids.conversation_key(*scope)[:3]).decode()


def stored_terms(fence: str, terms: str) -> str | None:
    """Each once, behind the fence; None where there is nothing to find."""
    found = dict.fromkeys(terms.split())
    joined = " ".join(fence + term for term in found)
    if len(joined.encode()) > MAX_BYTES:
        joined = joined.encode()[:MAX_BYTES].decode(errors="ignore").rpartition(" ")[0]
    return joined or None


def _term(fence: str, term: str, prefix: bool) -> str:
    return quoted(fence + term) + (":*" if prefix else "")


def _all_words(fence: str, parsed: Query) -> str:
    return " & ".join(_term(fence, term, word.kind == "prefix") for word in parsed.words for term in word.terms)


def _signs(vector: array[float]) -> str:
    """One bit for each number: whether it is positive."""
    return "".join("1" if x > 0 else "0" for x in vector)
