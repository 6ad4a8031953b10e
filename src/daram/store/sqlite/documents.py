"""Documents: the part of the engine that keeps them and finds their passages."""

from __future__ import annotations

import asyncio
import builtins
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import apsw

from daram.model import Unset
from daram.store.document_rows import to_document, to_passage
from daram.store.documents import Document, Only, Passage, PassageHit, PassageVector, Scope, Unembedded
from daram.store.documents_engine import MAX_SEQ, DocumentRef, DocumentsEngine
from daram.store.sqlite import passage_search, passages, vectors
from daram.store.sqlite.passages import SHIFT
from daram.store.sqlite.rows import Row, fetch, one, value
from daram.store.sqlite.signs import SignPages
from daram.store.sqlite.upkeep import Upkeep

T = TypeVar("T")
# So many passages, and characters, one transaction takes: turns wait for it, and what is staged nobody waits to see.
_TOGETHER = 40
_CHARACTERS = 40_000
_VECTORS = 100


class SqliteDocuments(DocumentsEngine):
    """The part of ``SqliteStore`` that keeps documents."""

    _upkeep: Upkeep
    _signs: SignPages

    @abstractmethod
    async def _write(self, work: Callable[[apsw.Connection, int], T]) -> T: ...

    @abstractmethod
    async def _read(self, work: Callable[[apsw.Connection], T]) -> T: ...

    async def _put_document(self, document: Document, expect: str | Unset | None) -> Document:
        return await self._write(lambda db, now: passages.put(db, now, document, expect))

    async def _get_document(self, ref: DocumentRef) -> Document:
        return await self._read(lambda db: to_document(passages.find(db, ref)))

    async def _list_documents(
        self, scope: Scope, limit: int, before: tuple[int, str] | None
    ) -> builtins.list[Document]:
        name = "list_documents" if before is None else "list_documents_before"
        values = (*scope, *(before or ()), limit)
        return await self._read(lambda db: [to_document(row) for row in fetch(db, name, values)])

    async def _unfinished_documents(
        self, limit: int, after: tuple[int, str, str, str] | None
    ) -> builtins.list[Document]:
        values = (*(after or (-(1 << 63), "", "", "")), limit)
        return await self._read(lambda db: [to_document(row) for row in fetch(db, "unfinished_documents", values)])

    async def _stage_passages(self, ref: DocumentRef, revision: str, given: builtins.list[Passage]) -> None:
        scope = Scope(ref.owner, ref.collection)
        for some in _pieces(given):
            indexed = await asyncio.to_thread(passages.prepare, scope, some)
            await self._write(partial(passages.stage, ref=ref, revision=revision, passages=indexed))

    async def _publish_document(self, document: Document, revision: str, expect: str) -> Document:
        def work(db: apsw.Connection, now: int) -> Document:
            self._upkeep.unpublished()
            return passages.publish(db, now, document, revision, expect)

        return await self._write(work)

    async def _discard_revision(self, ref: DocumentRef, revision: str) -> None:
        def work(db: apsw.Connection, _now: int) -> None:
            self._upkeep.unpublished()
            passages.discard(db, ref, revision)

        await self._write(work)

    async def _delete_document(self, ref: DocumentRef) -> None:
        def work(db: apsw.Connection, _now: int) -> None:
            self._upkeep.unpublished()
            passages.delete(db, ref)

        await self._write(work)

    async def _delete_collection(self, scope: Scope) -> int:
        def work(db: apsw.Connection, _now: int) -> int:
            self._upkeep.unpublished()
            return passages.delete_some(db, scope)

        count = 0
        while step := await self._write(work):
            count += step
        return count

    async def _passages(self, ref: DocumentRef, after: int, limit: int) -> builtins.list[Passage]:
        def work(db: apsw.Connection) -> builtins.list[Passage]:
            found = _of_live(db, "passages_after", ref, after, limit)
            return [to_passage(id & MAX_SEQ, row) for id, *row in found]

        return await self._read(work)

    async def _search_passages(
        self, scopes: builtins.list[Scope], query: str, limit: int, any_word: bool, only: Only | None
    ) -> builtins.list[PassageHit]:
        return await self._read(lambda db: passage_search.search(db, scopes, query, limit, any_word, only))

    async def _nearest_passages(
        self, scopes: builtins.list[Scope], vector: array[float], embedder: str, limit: int, only: Only | None
    ) -> builtins.list[PassageHit]:
        vectors.need_numpy()

        def work(db: apsw.Connection) -> builtins.list[PassageHit]:
            among = None if only is None else {number for number, _ in passage_search.chosen(db, scopes, only)}
            found = vectors.nearest(db, self._signs, scopes, vector, embedder, limit, among)
            rows = [(one(db, "hit", (id,)), cosine) for id, cosine in found]
            return [passage_search.to_hit(row, cosine) for row, cosine in rows if row is not None]

        return await self._read(work)

    async def _unembedded(self, embedder: str, limit: int) -> builtins.list[Unembedded]:
        def work(db: apsw.Connection) -> builtins.list[Unembedded]:
            by = value(db, "find_embedder", (embedder,)) or -1
            return [
                Unembedded(scope=Scope(*row[:2]), document=row[2], revision=row[3], seq=row[4] & MAX_SEQ, text=row[5])
                for row in fetch(db, "unembedded", (embedder, embedder, by, limit))
            ]

        return await self._read(work)

    async def _put_vectors(self, embedder: str, given: builtins.list[tuple[Unembedded, bytes]]) -> None:
        for start in range(0, len(given), _VECTORS):
            some = given[start : start + _VECTORS]
            await self._write(partial(passages.put_vectors, embedder=embedder, given=some))

    async def _scan_documents(self, limit: int, after: tuple[str, str, str] | None) -> builtins.list[Document]:
        values = (*(after or ("", "", "")), limit)
        return await self._read(lambda db: [to_document(row) for row in fetch(db, "scan_documents", values)])

    async def _passage_vectors(self, ref: DocumentRef, after: int, limit: int) -> builtins.list[PassageVector]:
        def work(db: apsw.Connection) -> builtins.list[PassageVector]:
            found = _of_live(db, "vectors_after", ref, after, limit)
            return [PassageVector(id & MAX_SEQ, name, vector) for id, name, vector in found]

        return await self._read(work)

    async def _load_document(self, document: Document, expect: str | None) -> Document:
        def work(db: apsw.Connection, now: int) -> Document:
            self._upkeep.unpublished()
            return passages.load(db, now, document, expect)

        return await self._write(work)


def _of_live(db: apsw.Connection, name: str, ref: DocumentRef, after: int, limit: int) -> Iterable[Row]:
    """Rows of a document's published revision, behind a passage. Raises ``NotFound``."""
    live = passages.find(db, ref)[18]
    if live is None:
        return []
    base = live << SHIFT
    return fetch(db, name, (base + after + 1, base + MAX_SEQ, limit))


def _pieces(given: builtins.list[Passage]) -> builtins.list[builtins.list[Passage]]:
    """In order, in pieces that the writer has soon done."""
    pieces: builtins.list[builtins.list[Passage]] = [[]]
    size = 0
    for passage in given:
        if pieces[-1] and (len(pieces[-1]) >= _TOGETHER or size + len(passage.text) > _CHARACTERS):
            pieces.append([])
            size = 0
        pieces[-1].append(passage)
        size += len(passage.text)
    return pieces
