"""A Store around a Store: what crosses engines (cache, metrics, faults) subclasses this, overriding what it changes."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from datetime import datetime

from daram.errors import Unsupported
from daram.model import (
    UNSET,
    Answer,
    Appended,
    Conversation,
    Hit,
    LogEntry,
    Message,
    OwnedRecord,
    Page,
    Part,
    Record,
    Status,
    Turn,
    Unset,
)
from daram.store.base import Order, PartialText, Store, SupportsRecords, SupportsTransfer
from daram.store.documents import SupportsDocuments
from daram.store.documents_wrapper import DocumentsWrapper


class StoreWrapper(DocumentsWrapper, Store):
    """Delegates every operation to ``inner``. Closing it closes ``inner``.

    The operations on records and documents, and those of ``SupportsTransfer``, raise ``Unsupported`` where ``inner``
    has them not.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    # --- conversations ---

    async def create(
        self,
        owner: str,
        *,
        id: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, str] | None = None,
        expires_at: datetime | None = None,
    ) -> Conversation:
        return await self.inner.create(owner, id=id, title=title, metadata=metadata, expires_at=expires_at)

    async def get(self, owner: str, id: str) -> Conversation:
        return await self.inner.get(owner, id)

    async def list(self, owner: str, *, limit: int = 20, cursor: str | None = None) -> Page[Conversation]:
        return await self.inner.list(owner, limit=limit, cursor=cursor)

    async def update(
        self,
        owner: str,
        id: str,
        *,
        title: str | Unset | None = UNSET,
        metadata: Mapping[str, str] | Unset = UNSET,
        pinned: bool | Unset = UNSET,
        archived: bool | Unset = UNSET,
        expires_at: datetime | Unset | None = UNSET,
    ) -> Conversation:
        return await self.inner.update(
            owner, id, title=title, metadata=metadata, pinned=pinned, archived=archived, expires_at=expires_at
        )

    async def delete(self, owner: str, id: str) -> None:
        await self.inner.delete(owner, id)

    async def delete_owner(self, owner: str) -> int:
        return await self.inner.delete_owner(owner)

    async def purge(self, *, limit: int = 1000) -> int:
        return await self.inner.purge(limit=limit)

    # --- messages ---

    async def append(
        self,
        owner: str,
        id: str,
        messages: Sequence[Message],
        *,
        parent: str | None = None,
        expect: int | str | None = None,
        create: bool = False,
        window: int = 0,
    ) -> Appended:
        return await self.inner.append(owner, id, messages, parent=parent, expect=expect, create=create, window=window)

    async def tail(self, owner: str, id: str, limit: int = 20) -> builtins.list[Message]:
        return await self.inner.tail(owner, id, limit)

    async def messages(
        self, owner: str, id: str, *, limit: int = 100, cursor: str | None = None, order: Order = "asc"
    ) -> Page[Message]:
        return await self.inner.messages(owner, id, limit=limit, cursor=cursor, order=order)

    async def message(self, owner: str, id: str, message_id: str) -> Message:
        return await self.inner.message(owner, id, message_id)

    async def delete_message(self, owner: str, id: str, message_id: str) -> Conversation:
        return await self.inner.delete_message(owner, id, message_id)

    async def branches(self, owner: str, id: str, message_id: str) -> builtins.list[Message]:
        return await self.inner.branches(owner, id, message_id)

    async def use_branch(self, owner: str, id: str, message_id: str) -> Conversation:
        return await self.inner.use_branch(owner, id, message_id)

    # --- the answer row ---

    async def begin_turn(
        self,
        owner: str,
        id: str,
        messages: Sequence[Message],
        *,
        answer_id: str | None = None,
        parent: str | None = None,
        expect: int | str | None = None,
        create: bool = False,
        window: int = 0,
        model: str | None = None,
        lease: float = 30.0,
        partial: PartialText | None = None,
    ) -> Turn:
        return await self.inner.begin_turn(
            owner,
            id,
            messages,
            answer_id=answer_id,
            parent=parent,
            expect=expect,
            create=create,
            window=window,
            model=model,
            lease=lease,
            partial=partial,
        )

    async def checkpoint(
        self, owner: str, id: str, answer_id: str, token: str, text: str, *, lease: float = 30.0
    ) -> bool:
        return await self.inner.checkpoint(owner, id, answer_id, token, text, lease=lease)

    async def finish_turn(
        self,
        owner: str,
        id: str,
        answer_id: str,
        token: str,
        *,
        text: str,
        status: Status = "complete",
        parts: Sequence[Part] = (),
        model: str | None = None,
        tokens: int | None = None,
        usage: Mapping[str, int] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Appended:
        return await self.inner.finish_turn(
            owner,
            id,
            answer_id,
            token,
            text=text,
            status=status,
            parts=parts,
            model=model,
            tokens=tokens,
            usage=usage,
            metadata=metadata,
        )

    async def cancel_turn(self, owner: str, id: str, answer_id: str | None = None) -> int:
        return await self.inner.cancel_turn(owner, id, answer_id)

    async def answers(self, owner: str, id: str) -> builtins.list[Answer]:
        return await self.inner.answers(owner, id)

    async def recover(
        self,
        *,
        owner: str | None = None,
        id: str | None = None,
        limit: int = 100,
        partial: PartialText | None = None,
    ) -> builtins.list[Message]:
        return await self.inner.recover(owner=owner, id=id, limit=limit, partial=partial)

    # --- search ---

    async def search(
        self,
        owner: str,
        query: str,
        *,
        conversation: str | None = None,
        limit: int = 20,
        any_word: bool = False,
    ) -> builtins.list[Hit]:
        return await self.inner.search(owner, query, conversation=conversation, limit=limit, any_word=any_word)

    # --- records ---

    async def get_record(self, owner: str, namespace: str, key: str) -> Record | None:
        return await self._records().get_record(owner, namespace, key)

    async def put_record(
        self,
        owner: str,
        namespace: str,
        key: str,
        value: bytes,
        *,
        expect: str | Unset | None = UNSET,
        expires_at: datetime | None = None,
    ) -> Record:
        return await self._records().put_record(owner, namespace, key, value, expect=expect, expires_at=expires_at)

    async def delete_record(self, owner: str, namespace: str, key: str, *, expect: str | Unset = UNSET) -> bool:
        return await self._records().delete_record(owner, namespace, key, expect=expect)

    async def scan_records(
        self, owner: str, namespace: str, prefix: str = "", *, limit: int = 100, cursor: str | None = None
    ) -> Page[Record]:
        return await self._records().scan_records(owner, namespace, prefix, limit=limit, cursor=cursor)

    # --- transfer ---

    async def scan(self, *, limit: int = 100, cursor: str | None = None) -> Page[Conversation]:
        return await self._transfer().scan(limit=limit, cursor=cursor)

    async def log(self, owner: str, id: str, *, after: int = 0, limit: int = 100) -> builtins.list[LogEntry]:
        return await self._transfer().log(owner, id, after=after, limit=limit)

    async def leaves(self, owner: str, id: str) -> builtins.list[int]:
        return await self._transfer().leaves(owner, id)

    async def load(
        self,
        conversation: Conversation,
        entries: Sequence[LogEntry],
        *,
        leaves: Sequence[int] = (),
        expect: str | None = None,
        more: bool = False,
    ) -> Conversation:
        return await self._transfer().load(conversation, entries, leaves=leaves, expect=expect, more=more)

    async def scan_all_records(self, *, limit: int = 100, cursor: str | None = None) -> Page[OwnedRecord]:
        return await self._transfer().scan_all_records(limit=limit, cursor=cursor)

    # --- life ---

    async def close(self) -> None:
        await self.inner.close()

    async def describe(self) -> dict[str, str]:
        return await self.inner.describe()

    def _records(self) -> SupportsRecords:
        if not isinstance(self.inner, SupportsRecords):
            raise Unsupported(f"{type(self.inner).__name__} keeps no records; the engines that come with Daram do")
        return self.inner

    def _documents(self) -> SupportsDocuments:
        if not isinstance(self.inner, SupportsDocuments):
            raise Unsupported(
                f"{type(self.inner).__name__} keeps no documents; they need SQLite or PostgreSQL, "
                "beside it or in its place"
            )
        return self.inner

    def _transfer(self) -> SupportsTransfer:
        if not isinstance(self.inner, SupportsTransfer):
            raise Unsupported(
                f"{type(self.inner).__name__} cannot be moved as a whole; the engines that come with Daram can"
            )
        return self.inner


def engine_of(store: Store) -> Store:
    """The store under all wrappers."""
    while isinstance(store, StoreWrapper):
        store = store.inner
    return store
