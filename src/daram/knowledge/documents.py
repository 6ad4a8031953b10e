"""``daram.Documents``: documents from upload to citation, for whoever asks. What the doors use."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from daram.errors import Conflict, InvalidInput, NotFound, UnsupportedDocument
from daram.knowledge import expiry
from daram.knowledge.access import Reader, reader
from daram.knowledge.base import library
from daram.knowledge.batches import Batches
from daram.knowledge.bindings import Binding, Bindings, delete_documents
from daram.knowledge.bound import BoundDocuments, GroupsOf, Where
from daram.knowledge.collections import CONVERSATION, SHADOW, Collection, Collections, of_conversation
from daram.knowledge.files import Bytes, Files, StoredFile, Until
from daram.knowledge.filters import compiled
from daram.knowledge.fuse import Found
from daram.knowledge.ingest import Ingester
from daram.knowledge.leases import Work
from daram.knowledge.references import References
from daram.knowledge.retrieve import Query, Reranker, Result, Retrieval, Retriever
from daram.llm.base import Embedder
from daram.model import Page
from daram.store.base import Store
from daram.store.documents import Attribute, Document, Passage, Scope
from daram.text.chunk import Chunking
from daram.text.load import LoadLimits, clean, kind_of

# Ends of lines, and what turns the direction of a text.
_UNSHOWN = {9: " ", 10: " "} | dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)))


class Documents(BoundDocuments):
    """The documents beside the conversations of ``memory`` (any ``Store`` that keeps documents).

    ``embedder``: for the search by meaning (None: by words alone); ``retrieval``: how to search where nothing else is
    said; ``groups``: tells the groups of an owner, asked anew at every turn; ``limits``: of one document.

    Every operation names who asks: a ``Reader``, or an owner's name. What he may not read behaves as what is not there.
    ``embedder`` and memory are not closed with it. Raises ``Unsupported`` where the store keeps no documents.
    """

    def __init__(
        self,
        memory: Store,
        embedder: Embedder | None = None,
        *,
        retrieval: Retrieval = Retrieval(),
        reranker: Reranker | None = None,
        groups: GroupsOf | None = None,
        limits: LoadLimits = LoadLimits(),
        workers: int = 2,
    ) -> None:
        retrieval.check()
        store = library(memory)
        self._store = store
        self._memory = memory
        self._limits = limits
        self._task: asyncio.Task[None] | None = None
        self.retrieval = retrieval
        self.groups = groups
        self.files = Files(store)
        self.collections = Collections(store)
        self.ingester = Ingester(store, self.files, self.collections, embedder, limits=limits, workers=workers)
        self.retriever = Retriever(store, embedder, reranker=reranker)
        self.references = References(store, self.files, self.ingester)
        self.bindings = Bindings(store, memory, self.files)
        self.batches = Batches(store)

    # --- documents ---

    async def add(
        self,
        who: Reader | str,
        where: Where,
        data: Bytes,
        *,
        name: str | None = None,
        title: str | None = None,
        media_type: str | None = None,
        id: str | None = None,
        metadata: Mapping[str, Attribute] | None = None,
        until: Until = "document",
        wait: bool = False,
    ) -> Document:
        """Put a document into a collection (made where there is none): a path, bytes, or a stream of bytes.

        It is kept when this returns, and read in the background (see ``start``), or with ``wait`` before this returns.
        ``id``: without one it is drawn from the name, so that the same name again replaces exactly that document; the
        same bytes again change nothing. ``until``: how long the original stays. Raises ``UnsupportedDocument``,
        ``DocumentTooLarge``, ``NotAllowed``, ``InvalidInput``; what is wrong inside it is said in ``Document.error``.
        """
        scope = self._fillable(who, where)
        return await self._take(scope, data, name, title, media_type, id, metadata, until, wait)

    async def _take(
        self,
        scope: Scope,
        data: Bytes,
        name: str | None,
        title: str | None = None,
        media_type: str | None = None,
        id: str | None = None,
        metadata: Mapping[str, Attribute] | None = None,
        until: Until = "document",
        wait: bool = False,
    ) -> Document:
        name = self._name(data, name)
        kind_of(name, media_type)
        collection = await self.collections.ensure(*scope)
        id = document_id(name) if id is None else id
        file = await self.files.put(
            scope.owner,
            name,
            data,
            media_type=media_type,
            until=until,
            document=(scope.collection, id),
            limit=self._limits.file,
        )
        return await self._add(scope, collection, file, id, title, metadata, wait)

    async def add_file(
        self,
        who: Reader | str,
        where: Where,
        file_id: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, Attribute] | None = None,
        chunking: Chunking | None = None,
        refuse: bool = True,
        wait: bool = False,
    ) -> Document:
        """Put a file of the reader's (see ``files``) into a collection; the document has the file's id.

        ``chunking``: in place of the collection's; ``refuse``: else a file that nothing here reads becomes a document
        that has failed. Raises ``NotFound``, ``NotAllowed``, ``UnsupportedDocument``.
        """
        scope = self._fillable(who, where)
        file = await self.files.get(reader(who).owner, file_id)
        unread: UnsupportedDocument | None = None
        try:
            kind_of(file.name, file.media_type)
        except UnsupportedDocument as error:
            if refuse:
                raise
            unread = error
        if file.owner != scope.owner:
            raise InvalidInput("file_id", "a file goes into collections of its own owner; upload it to this one")
        collection = await self.collections.ensure(*scope)
        if unread is not None:
            failed = self._document(scope, file, file.id, title, metadata)
            failed = msgspec.structs.replace(
                failed, source=file.id, bytes=file.bytes, state="failed", error=str(unread)
            )
            return await self._store.put_document(failed)
        if chunking is not None:
            collection = msgspec.structs.replace(collection, chunking=chunking)
        stored = await self._add(scope, collection, file, file.id, title, metadata, wait)
        if metadata is not None and stored.metadata != metadata:  # it was there already
            return await self.describe(who, scope, file.id, metadata)
        return stored

    async def describe(self, who: Reader | str, where: Where, id: str, metadata: Mapping[str, Attribute]) -> Document:
        """Change what is said of a document: its metadata as a whole. Raises ``NotFound``, ``NotAllowed``."""
        scope = self._writable(who, where)
        while True:
            found = await self._store.get_document(*scope, id)
            changed = msgspec.structs.replace(found, metadata=dict(metadata))
            try:
                return await self._store.put_document(changed, expect=found.etag)
            except Conflict:  # it was read or replaced at the same moment
                continue

    async def cancel(self, who: Reader | str, where: Where, id: str) -> Document:
        """Have a document not be read that still waits. Raises ``NotFound``, ``NotAllowed``."""
        scope = self._writable(who, where)
        return await self.ingester.cancel(await self._store.get_document(*scope, id))

    async def attach(
        self,
        who: Reader | str,
        conversation: str,
        data: Bytes,
        *,
        name: str | None = None,
        media_type: str | None = None,
        only: bool = False,
        wait: bool = False,
    ) -> Document:
        """Upload into a conversation of the reader's: its answers use it, and it goes with the conversation.

        ``only``: as in ``bind``, where nothing is bound yet. Raises as ``add`` does, and ``NotFound``.
        """
        owner = reader(who).owner
        there = await self._memory.get(owner, conversation)
        bound = await self.bindings.get(owner, conversation)
        if bound is None or not bound.uploads:
            await self.bindings.change(
                there, lambda found: msgspec.structs.replace(found or Binding(only=only), uploads=True)
            )
        scope = Scope(owner, of_conversation(conversation))
        document = await self._take(scope, data, name, media_type=media_type, wait=wait)
        try:
            await self._memory.get(owner, conversation)
        except NotFound:  # deleted meanwhile: what goes with it must not stay behind
            await self.bindings.end(owner, conversation)
            raise
        return document

    async def get(self, who: Reader | str, where: Where, id: str) -> Document:
        """A document. Raises ``NotFound``."""
        return await self._store.get_document(*self._readable(who, where), id)

    async def list(
        self, who: Reader | str, where: Where, *, limit: int = 20, cursor: str | None = None
    ) -> Page[Document]:
        """The documents of a collection, the newest first."""
        return await self._store.list_documents(*self._readable(who, where), limit=limit, cursor=cursor)

    async def remove(self, who: Reader | str, where: Where, id: str) -> None:
        """Delete a document; nothing of it is left. Raises ``NotFound``, ``NotAllowed``."""
        await self.ingester.delete(*self._writable(who, where), id)

    async def passages(
        self, who: Reader | str, where: Where, id: str, *, after: int = -1, limit: int = 100
    ) -> builtins.list[Passage]:
        """The passages of a document in order: what a citation opens. Raises ``NotFound``."""
        return await self._store.passages(*self._readable(who, where), id, after=after, limit=limit)

    async def progress(self, document: Document) -> Work | None:
        """How far the reading of a document is (``passages``, ``page``); None where nobody is at it."""
        return await self.ingester.progress(document)

    async def wait(self, document: Document) -> Document:
        """Wait until a document is ``ready`` or ``failed``; returns it as it is then. Raises ``NotFound``."""
        return await self.ingester.wait(document)

    # --- collections ---

    async def create(
        self,
        who: Reader | str,
        *,
        id: str | None = None,
        owner: str | None = None,
        name: str | None = None,
        description: str = "",
        chunking: Chunking = Chunking(),
        metadata: dict[str, str] | None = None,
        expires_days: int | None = None,
    ) -> Collection:
        """Make a collection, of the reader's own or of another ``owner``: ``group:NAME``, ``official``.

        Raises ``Conflict``, ``NotAllowed``, ``InvalidInput``.
        """
        asked = reader(who)
        owner = asked.owner if owner is None else owner
        asked.check_write(owner, "collection", id or owner)
        made = await self.collections.create(
            owner,
            id=id,
            name=name,
            description=description,
            chunking=chunking,
            metadata=metadata,
            expires_days=expires_days,
        )
        await expiry.note(self._store, made)
        return made

    async def list_collections(self, who: Reader | str) -> builtins.list[Collection]:
        """All collections that the reader may read: his own, those of his groups, the official ones."""
        return [found for owner in reader(who).owners() async for found in self.collections.all(owner)]

    async def delete_collection(self, who: Reader | str, where: Where) -> int:
        """Delete a collection with its documents; returns how many there were. Raises ``NotAllowed``, ``NotFound``."""
        scope = self._writable(who, where)
        await self.collections.get(*scope)
        count = await delete_documents(self._store, self.files, scope)
        await self.batches.forget(scope)
        await self.collections.forget(*scope)
        # What was being added meanwhile sees that the collection is gone, or is seen here.
        return count + await delete_documents(self._store, self.files, scope)

    # --- search ---

    async def search(
        self,
        who: Reader | str,
        query: str | Sequence[Query],
        where: Sequence[Where] | Where | None = None,
        *,
        how: Retrieval | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> Result:
        """The passages that bear on a question, in some collections or (None) in all that the reader may read.

        ``filters``: only in documents whose metadata fulfils them (see ``daram.knowledge.filters``), of which the best
        are found as if there were no others. Raises ``InvalidInput``.
        """
        passes = None if filters is None else compiled(filters)
        if where is None:
            scopes = [Scope(c.owner, c.id) for c in await self.list_collections(who)]
        else:
            named = [where] if isinstance(where, str | Scope) else where
            scopes = [self._readable(who, one) for one in named]
        return await self.retriever.search(scopes, query, how or self.retrieval, passes=passes)

    async def said_of(self, passages: Sequence[Found]) -> dict[tuple[Scope, str], dict[str, Attribute]]:
        """The metadata of the documents that these passages are of."""
        found: dict[tuple[Scope, str], dict[str, Attribute]] = {}
        for scope, id in dict.fromkeys((passage.scope, passage.document) for passage in passages):
            try:
                found[scope, id] = (await self._store.get_document(*scope, id)).metadata
            except NotFound:  # deleted since
                found[scope, id] = {}
        return found

    # --- life ---

    def start(self, interval: float = 30.0) -> None:
        """Read what is waiting in the background, also what a crash left behind, until ``close``."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self.ingester.run(interval))

    async def close(self) -> None:
        """Stop reading; what is not read yet waits for the next start. A second call is harmless."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- helpers ---

    async def _add(
        self,
        scope: Scope,
        collection: Collection,
        file: StoredFile,
        id: str,
        title: str | None,
        metadata: Mapping[str, Attribute] | None,
        wait: bool,
    ) -> Document:
        document = self._document(scope, file, id, title, metadata)
        stored = await self.ingester.add(document, file, collection.chunking)
        if collection.etag and await self.collections.find(*scope) is None:
            # Deleted while this was on its way: what nobody would find again must not stay.
            with suppress(NotFound):
                await self.ingester.delete(*scope, id)
            raise NotFound("collection", scope.collection)
        return await self.ingester.wait(stored) if wait else stored

    def _document(
        self, scope: Scope, file: StoredFile, id: str, title: str | None, metadata: Mapping[str, Attribute] | None
    ) -> Document:
        return Document(
            id=id,
            owner=scope.owner,
            collection=scope.collection,
            name=file.name,
            title=title,
            media_type=file.media_type,
            metadata=dict(metadata or {}),
        )

    def _name(self, data: Any, name: str | None) -> str:
        if name is None and isinstance(data, Path):
            name = data.name
        # It is shown, and begins what is said of the document: one line, that reads as it is written.
        name = clean(name or "").translate(_UNSHOWN)
        if not name:
            raise InvalidInput("name", "must be given where the document is not a path")
        return name

    def _readable(self, who: Reader | str, where: Where) -> Scope:
        asked = reader(who)
        scope = where if isinstance(where, Scope) else Scope(asked.owner, where)
        asked.check_read(scope.owner, "collection", scope.collection)
        return scope

    def _fillable(self, who: Reader | str, where: Where) -> Scope:
        scope = self._writable(who, where)
        if scope.collection.startswith(CONVERSATION):
            raise InvalidInput("collection", f"{scope.collection!r} takes what is attached to its conversation only")
        return scope

    def _writable(self, who: Reader | str, where: Where) -> Scope:
        scope = self._readable(who, where)
        reader(who).check_write(scope.owner, "collection", scope.collection)
        if scope.collection.startswith(SHADOW):
            raise InvalidInput("collection", f"{scope.collection!r} is made from a reference; change that")
        return scope


def document_id(name: str) -> str:
    """The id of a document that was given none: the same for the same name."""
    return "doc_" + blake2b(name.encode(), digest_size=12).hexdigest()
