"""Which documents a conversation is about: a record beside it, by reference, so that every door answers from them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from daram.errors import Conflict, NotFound
from daram.knowledge.base import BINDINGS, HOUSE, Library, decode, digest_key, documents_of, encode, records_of
from daram.knowledge.collections import of_conversation
from daram.knowledge.files import Files
from daram.knowledge.leases import forget
from daram.model import Conversation
from daram.store.base import Store
from daram.store.documents import Scope

BOUND = "documents.bound"


class Title(msgspec.Struct, frozen=True):
    """A reference by its name."""

    owner: str
    category: str
    title_no: str


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversation's answers come from: ``collections``, a ``reference``, and with ``uploads`` what was uploaded
    into it.

    ``only``: answers come from there alone, and where nothing there bears on a question, they say so. ``three_ways``:
    each question is also asked for its concept, its usage and its code. ``groups``: those of its owner when it was
    bound. ``passages``, ``threshold``, ``words``, ``vectors``, ``rerank``: as in ``Retrieval``, for this alone;
    ``filters``: as in ``daram.knowledge.filters``. ``made``: when the conversation was, so
    that one of the same name made later does not take it over.
    """

    collections: tuple[Scope, ...] = ()
    reference: Title | None = None
    uploads: bool = False
    only: bool = True
    three_ways: bool = False
    groups: tuple[str, ...] = ()
    passages: int | None = None
    threshold: float | None = None
    words: float | None = None
    vectors: float | None = None
    rerank: bool | None = None
    filters: dict[str, Any] | None = None
    made: datetime | None = None


class _Bound(msgspec.Struct):
    owner: str
    conversation: str
    made: datetime | None = None


class Bindings:
    """The bindings of a store's conversations, and the end of what goes with them."""

    def __init__(self, store: Library, conversations: Store, files: Files) -> None:
        self._store = store
        self._conversations = conversations
        self._files = files

    async def get(self, owner: str, conversation: str) -> Binding | None:
        """The binding of a conversation, or None. One of an earlier conversation of that name is none."""
        record = await self._store.get_record(owner, BINDINGS, conversation)
        if record is None:
            return None
        found = decode(record.value, Binding, f"binding of {conversation!r}")
        try:
            there = await self._conversations.get(owner, conversation)
        except NotFound:
            return None
        return found if found.made == there.created_at else None

    async def change(self, conversation: Conversation, change: Callable[[Binding | None], Binding]) -> Binding:
        """Bind a conversation to what ``change`` makes of its present binding; of two at once both are heeded."""
        owner, id = conversation.owner, conversation.id
        while True:
            record = await self._store.get_record(owner, BINDINGS, id)
            found = None if record is None else decode(record.value, Binding, f"binding of {id!r}")
            if found is not None and found.made != conversation.created_at:
                await self.end_uploads(owner, id)  # of an earlier conversation of that name, which has expired
                found = None
            made = msgspec.structs.replace(change(found), made=conversation.created_at)
            if made.uploads:
                # Noted for the house, which has to find what is left when the conversation has expired.
                bound = encode(_Bound(owner, id, made.made))
                await self._store.put_record(HOUSE, BOUND, digest_key(owner, id), bound)
            try:
                await self._store.put_record(
                    owner, BINDINGS, id, encode(made), expect=None if record is None else record.etag
                )
            except Conflict:  # bound by somebody else at the same moment
                continue
            return made

    async def end(self, owner: str, conversation: str) -> None:
        """Delete a conversation's binding and what was uploaded into it. Harmless where there is nothing."""
        record = await self._store.get_record(owner, BINDINGS, conversation)
        noted = await self._store.get_record(HOUSE, BOUND, digest_key(owner, conversation))
        if record is None and noted is None:
            return
        await self.end_uploads(owner, conversation)
        await self._store.delete_record(owner, BINDINGS, conversation)
        await self._store.delete_record(HOUSE, BOUND, digest_key(owner, conversation))

    async def end_uploads(self, owner: str, conversation: str) -> None:
        """Delete what was uploaded into a conversation."""
        await delete_documents(self._store, self._files, Scope(owner, of_conversation(conversation)))

    async def sweep(self) -> int:
        """End what belonged to conversations that are gone (they expire without anybody's doing); returns how many."""
        ended = 0
        async for record in records_of(self._store, HOUSE, BOUND):
            bound = decode(record.value, _Bound, f"binding {record.key!r}")
            if not await self._is_there(bound):
                await self.end(bound.owner, bound.conversation)
                ended += 1
        return ended

    async def _is_there(self, bound: _Bound) -> bool:
        try:
            there = await self._conversations.get(bound.owner, bound.conversation)
        except NotFound:
            return False
        return bound.made in (None, there.created_at)


async def delete_documents(store: Library, files: Files, scope: Scope) -> int:
    """Delete the documents of a collection with the originals that are their own; returns how many documents."""
    originals, documents = [], []
    async for document in documents_of(store, scope):
        documents.append(document)
        file = await files.find(scope.owner, document.source) if document.source else None
        if file is not None and file.until != "deleted":
            await files.note(file, 0)
            originals.append(file)
    count = await store.delete_collection(*scope)
    for document in documents:
        await forget(store, document)
    for file in originals:
        await files.drop(file.owner, file.id)
    return count
