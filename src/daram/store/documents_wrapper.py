"""The operations on documents of a Store around a Store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from daram.model import UNSET, Page, Unset
from daram.store.documents import (
    Document,
    Only,
    Passage,
    PassageHit,
    PassageVector,
    Scope,
    SupportsDocuments,
    Unembedded,
)


class DocumentsWrapper(ABC):
    """The part of ``StoreWrapper`` that delegates ``SupportsDocuments``."""

    @abstractmethod
    def _documents(self) -> SupportsDocuments:
        """What keeps the documents. Raises ``Unsupported`` where nothing does."""

    async def put_document(self, document: Document, *, expect: str | Unset | None = UNSET) -> Document:
        return await self._documents().put_document(document, expect=expect)

    async def get_document(self, owner: str, collection: str, id: str) -> Document:
        return await self._documents().get_document(owner, collection, id)

    async def list_documents(
        self, owner: str, collection: str, *, limit: int = 20, cursor: str | None = None
    ) -> Page[Document]:
        return await self._documents().list_documents(owner, collection, limit=limit, cursor=cursor)

    async def unfinished_documents(self, *, limit: int = 100, cursor: str | None = None) -> Page[Document]:
        return await self._documents().unfinished_documents(limit=limit, cursor=cursor)

    async def stage_passages(
        self, owner: str, collection: str, id: str, revision: str, passages: Sequence[Passage]
    ) -> None:
        await self._documents().stage_passages(owner, collection, id, revision, passages)

    async def publish_document(self, document: Document, revision: str, *, expect: str) -> Document:
        return await self._documents().publish_document(document, revision, expect=expect)

    async def discard_revision(self, owner: str, collection: str, id: str, revision: str) -> None:
        await self._documents().discard_revision(owner, collection, id, revision)

    async def delete_document(self, owner: str, collection: str, id: str) -> None:
        await self._documents().delete_document(owner, collection, id)

    async def delete_collection(self, owner: str, collection: str) -> int:
        return await self._documents().delete_collection(owner, collection)

    async def passages(
        self, owner: str, collection: str, id: str, *, after: int = -1, limit: int = 100
    ) -> list[Passage]:
        return await self._documents().passages(owner, collection, id, after=after, limit=limit)

    async def search_passages(
        self,
        scopes: Sequence[Scope],
        query: str,
        *,
        limit: int = 20,
        any_word: bool = True,
        only: Only | None = None,
    ) -> list[PassageHit]:
        return await self._documents().search_passages(scopes, query, limit=limit, any_word=any_word, only=only)

    async def nearest_passages(
        self,
        scopes: Sequence[Scope],
        vector: Sequence[float],
        embedder: str,
        *,
        limit: int = 20,
        only: Only | None = None,
    ) -> list[PassageHit]:
        return await self._documents().nearest_passages(scopes, vector, embedder, limit=limit, only=only)

    async def unembedded(self, embedder: str, *, limit: int = 100) -> list[Unembedded]:
        return await self._documents().unembedded(embedder, limit=limit)

    async def put_vectors(self, embedder: str, vectors: Sequence[tuple[Unembedded, bytes]]) -> None:
        await self._documents().put_vectors(embedder, vectors)

    async def scan_documents(self, *, limit: int = 100, cursor: str | None = None) -> Page[Document]:
        return await self._documents().scan_documents(limit=limit, cursor=cursor)

    async def passage_vectors(
        self, owner: str, collection: str, id: str, *, after: int = -1, limit: int = 100
    ) -> list[PassageVector]:
        return await self._documents().passage_vectors(owner, collection, id, after=after, limit=limit)

    async def load_document(self, document: Document, *, expect: str | None) -> Document:
        return await self._documents().load_document(document, expect=expect)
