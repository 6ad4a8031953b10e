"""Documents in memory: every search looks through everything, which is slow and obviously right."""

from __future__ import annotations

import builtins
from abc import abstractmethod
from array import array
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from daram import ids
from daram.codec import to_micros
from daram.errors import NotFound
from daram.model import Unset
from daram.store import conflicts
from daram.store.documents import Document, Only, Passage, PassageHit, PassageVector, Scope, Unembedded
from daram.store.documents_engine import STAGED_SECONDS, DocumentRef, DocumentsEngine, bare, expected, floats
from daram.text.analyzer import index_terms, loose_terms, matches, parse_query
from daram.text.bm25 import scores

if TYPE_CHECKING:
    from daram.store.memory.engine import MemoryData


class Revision(msgspec.Struct):
    """Passages by ``seq``, and their vectors with the model that made them (None until they are published)."""

    staged_at: datetime
    passages: dict[int, Passage] = {}
    vectors: dict[int, tuple[str | None, bytes]] = {}


class MemoryDocuments(DocumentsEngine):
    """The part of ``MemoryStore`` that keeps documents."""

    data: MemoryData

    @abstractmethod
    def _now(self) -> datetime: ...

    @abstractmethod
    def _moment(self) -> datetime: ...

    async def _put_document(self, document: Document, expect: str | Unset | None) -> Document:
        ref = _ref(document)
        found = self.data.documents.get(ref)
        if not expected(found, expect):
            raise conflicts.document_not_as_expected(ref.id)
        now = self._moment()
        given = msgspec.structs.replace(document, etag=ids.etag(), created_at=now, updated_at=now, embedder=None)
        if found is not None:
            given = msgspec.structs.replace(
                given,
                created_at=found.created_at,
                revision=found.revision,
                passages=found.passages,
                embedder=found.embedder,
            )
        self.data.documents[ref] = given
        return _own(given)

    async def _get_document(self, ref: DocumentRef) -> Document:
        return _own(self._find_document(ref))

    async def _list_documents(
        self, scope: Scope, limit: int, before: tuple[int, str] | None
    ) -> builtins.list[Document]:
        found = {
            (_made(document), ref.id): document
            for ref, document in self.data.documents.items()
            if ref[:2] == tuple(scope)
        }
        positions = sorted((p for p in found if before is None or p < before), reverse=True)
        return [_own(found[position]) for position in positions[:limit]]

    async def _unfinished_documents(
        self, limit: int, after: tuple[int, str, str, str] | None
    ) -> builtins.list[Document]:
        found = {
            (_made(document), *ref): document
            for ref, document in self.data.documents.items()
            if document.state in ("waiting", "reading")
        }
        positions = sorted(p for p in found if after is None or p > after)
        return [_own(found[position]) for position in positions[:limit]]

    async def _stage_passages(self, ref: DocumentRef, revision: str, passages: builtins.list[Passage]) -> None:
        if self._find_document(ref).revision == revision:
            raise conflicts.revision_is_published(ref.id, revision)
        staged = self.data.revisions.setdefault((ref, revision), Revision(self._now()))
        staged.staged_at = self._now()
        for passage in passages:
            staged.passages[passage.seq] = bare(passage)
            staged.vectors.pop(passage.seq, None)
            if passage.vector is not None:
                staged.vectors[passage.seq] = (None, passage.vector)

    async def _publish_document(self, document: Document, revision: str, expect: str) -> Document:
        ref = _ref(document)
        found = self._find_document(ref)
        if found.etag != expect:
            raise conflicts.document_not_as_expected(ref.id)
        made = self.data.revisions.get((ref, revision)) or Revision(self._now())
        made.vectors = {
            seq: (by or document.embedder, vector)
            for seq, (by, vector) in made.vectors.items()
            if by or document.embedder
        }
        self._forget(ref)
        self.data.revisions[ref, revision] = made
        given = msgspec.structs.replace(
            document,
            etag=ids.etag(),
            revision=revision,
            passages=len(made.passages),
            embedder=_whole(made, document.embedder),
            created_at=found.created_at,
            updated_at=self._moment(),
        )
        self.data.documents[ref] = given
        return _own(given)

    async def _discard_revision(self, ref: DocumentRef, revision: str) -> None:
        document = self.data.documents.get(ref)
        if document is None or document.revision != revision:
            self.data.revisions.pop((ref, revision), None)

    async def _delete_document(self, ref: DocumentRef) -> None:
        self._find_document(ref)
        del self.data.documents[ref]
        self._forget(ref)

    async def _delete_collection(self, scope: Scope) -> int:
        return self._delete_documents([ref for ref in self.data.documents if ref[:2] == tuple(scope)])

    async def _passages(self, ref: DocumentRef, after: int, limit: int) -> builtins.list[Passage]:
        document = self._find_document(ref)
        if document.revision is None:
            return []
        passages = self.data.revisions[ref, document.revision].passages
        return [passages[seq] for seq in sorted(passages) if seq > after][:limit]

    async def _search_passages(
        self, scopes: builtins.list[Scope], query: str, limit: int, any_word: bool, only: Only | None
    ) -> builtins.list[PassageHit]:
        parsed = parse_query(query)
        there = [(ref, document, p) for ref, document, _, p in self._published() if _is_meant(ref, scopes, only)]
        terms = [index_terms(passage.text).split() for _, _, passage in there]
        ranked = scores(loose_terms(parsed), terms)
        for all_words in (False,) if any_word else (True, False):
            hits = [
                _hit(ref, document, passage, ranked[i])
                for i, (ref, document, passage) in enumerate(there)
                if matches(parsed, terms[i], all_words=all_words)
            ]
            if hits:
                return sorted(hits, key=_best_first)[:limit]
        return []

    async def _nearest_passages(
        self, scopes: builtins.list[Scope], vector: array[float], embedder: str, limit: int, only: Only | None
    ) -> builtins.list[PassageHit]:
        hits = []
        for ref, document, revision, passage in self._published():
            by, stored = revision.vectors.get(passage.seq, (None, b""))
            if _is_meant(ref, scopes, only) and by == embedder and len(stored) == 4 * len(vector):
                cosine = sum(a * b for a, b in zip(vector, floats(stored), strict=True))
                hits.append(_hit(ref, document, passage, cosine))
        return sorted(hits, key=_best_first)[:limit]

    async def _unembedded(self, embedder: str, limit: int) -> builtins.list[Unembedded]:
        found: builtins.list[Unembedded] = []
        for ref, document, revision, passage in self._published():
            by, _ = revision.vectors.get(passage.seq, (None, b""))
            if by != embedder and document.revision is not None and len(found) < limit:
                place = Scope(*ref[:2])
                found.append(
                    Unembedded(
                        scope=place, document=ref.id, revision=document.revision, seq=passage.seq, text=passage.text
                    )
                )
        return found

    async def _put_vectors(self, embedder: str, vectors: builtins.list[tuple[Unembedded, bytes]]) -> None:
        for place, vector in vectors:
            ref = DocumentRef(*place.scope, place.document)
            document = self.data.documents.get(ref)
            if document is None or document.revision != place.revision:
                continue
            revision = self.data.revisions[ref, place.revision]
            if place.seq in revision.passages:
                revision.vectors[place.seq] = (embedder, vector)
                self.data.documents[ref] = msgspec.structs.replace(document, embedder=_whole(revision, embedder))

    async def _scan_documents(self, limit: int, after: tuple[str, str, str] | None) -> builtins.list[Document]:
        refs = sorted(ref for ref in self.data.documents if after is None or tuple(ref) > after)
        return [_own(self.data.documents[ref]) for ref in refs[:limit]]

    async def _passage_vectors(self, ref: DocumentRef, after: int, limit: int) -> builtins.list[PassageVector]:
        document = self._find_document(ref)
        if document.revision is None:
            return []
        stored = self.data.revisions[ref, document.revision].vectors
        found = [PassageVector(seq, by, vector) for seq, (by, vector) in sorted(stored.items()) if by is not None]
        return [one for one in found if one.seq > after][:limit]

    async def _load_document(self, document: Document, expect: str | None) -> Document:
        ref = _ref(document)
        found = self.data.documents.get(ref)
        if not expected(found, expect):
            raise conflicts.document_not_as_expected(ref.id)
        if document.revision is None:
            self._forget(ref)
            loaded = msgspec.structs.replace(document, etag=ids.etag(), embedder=None)
        elif found is not None and found.revision == document.revision:
            loaded = msgspec.structs.replace(document, etag=ids.etag(), embedder=found.embedder)
        else:
            made = self.data.revisions.get((ref, document.revision)) or Revision(self._now())
            if len(made.passages) != document.passages:
                raise conflicts.passages_are_missing(ref.id, document.passages, len(made.passages))
            made.vectors = {seq: (document.embedder, v) for seq, (_, v) in made.vectors.items() if document.embedder}
            self._forget(ref)
            self.data.revisions[ref, document.revision] = made
            loaded = msgspec.structs.replace(document, etag=ids.etag(), embedder=_whole(made, document.embedder))
        self.data.documents[ref] = loaded
        return _own(loaded)

    # --- helpers ---

    def _find_document(self, ref: DocumentRef) -> Document:
        found = self.data.documents.get(ref)
        if found is None:
            raise NotFound("document", ref.id)
        return found

    def _published(self) -> Iterator[tuple[DocumentRef, Document, Revision, Passage]]:
        for ref, document in self.data.documents.items():
            if document.revision is not None:
                revision = self.data.revisions[ref, document.revision]
                for seq in sorted(revision.passages):
                    yield ref, document, revision, revision.passages[seq]

    def _forget(self, ref: DocumentRef) -> None:
        for key in [key for key in self.data.revisions if key[0] == ref]:
            del self.data.revisions[key]

    def _delete_documents(self, refs: builtins.list[DocumentRef]) -> int:
        for ref in refs:
            del self.data.documents[ref]
            self._forget(ref)
        return len(refs)

    def _purge_staged(self) -> None:
        old = self._now() - timedelta(seconds=STAGED_SECONDS)
        for (ref, name), revision in [*self.data.revisions.items()]:
            if revision.staged_at < old and self._find_document(ref).revision != name:
                del self.data.revisions[ref, name]


def _is_meant(ref: DocumentRef, scopes: builtins.list[Scope], only: Only | None) -> bool:
    scope = Scope(ref.owner, ref.collection)
    return scope in scopes and (only is None or scope not in only or ref.id in only[scope])


def _ref(document: Document) -> DocumentRef:
    return DocumentRef(document.owner, document.collection, document.id)


def _own(document: Document) -> Document:
    return msgspec.structs.replace(document, metadata=dict(document.metadata))


def _made(document: Document) -> int:
    assert document.created_at is not None
    return to_micros(document.created_at)


def _whole(revision: Revision, embedder: str | None) -> str | None:
    """The model, if all passages have a vector of it."""
    have = {by for by, _ in revision.vectors.values()}
    return embedder if have == {embedder} and len(revision.vectors) == len(revision.passages) else None


def _hit(ref: DocumentRef, document: Document, passage: Passage, score: float) -> PassageHit:
    return PassageHit(
        scope=Scope(*ref[:2]),
        document=ref.id,
        revision=document.revision or "",
        name=document.name,
        title=document.title,
        passage=passage,
        score=score,
    )


def _best_first(hit: PassageHit) -> tuple[float, str, int]:
    return -hit.score, hit.document, hit.passage.seq
