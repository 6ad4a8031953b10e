"""What LlamaIndex's ``Memory`` keeps its queue in (from llama-index-core 0.14.24), on a Daram store.

::

    memory = Memory.from_defaults(session_id="forest", chat_store=DaramMemoryStore(store, owner="alice"))
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms import ChatMessage
from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus

from daram import sync
from daram.adapters.appending import again, append_all, outcome
from daram.adapters.llama_index.chat_store import DaramChatStore, from_message, to_message
from daram.errors import Conflict, InvalidInput, NotFound, Unsupported
from daram.model import Message
from daram.store.base import Store, SupportsRecords

__all__ = ["DaramMemoryStore"]

R = TypeVar("R")

ARCHIVED: Final = "llama_index.archived"
"""The namespace of the records that say which message of a conversation was archived last."""

_PAGE: Final = 50


class _Mark(msgspec.Struct, frozen=True):
    """The message that was archived last: those before it are, too, whether or not it is still there."""

    seq: int
    created_at: datetime | None

    def covers(self, message: Message) -> bool:
        """Whether it is archived. A list that another door put in place begins with ``seq`` 1, but is younger."""
        told = self.created_at is None or message.created_at is None or message.created_at <= self.created_at
        return told and message.seq <= self.seq


class DaramMemoryStore(AsyncDBChatStore):
    """The conversations of ``owner`` in ``memory`` (of ``daram.open`` or ``daram.sync.open``), which must keep records.

    A session is a conversation; what left the queue stays in it, archived. ``get_messages`` reads the queue and no
    further, so a turn costs the same at any length. Messages come to the end of the queue and leave it in front.
    """

    _store: Store = PrivateAttr()
    _records: SupportsRecords = PrivateAttr()
    _owner: str = PrivateAttr()
    _chats: DaramChatStore = PrivateAttr()
    _synchronous: bool = PrivateAttr()

    def __init__(self, memory: Store | sync.Memory, *, owner: str) -> None:
        super().__init__()
        store = memory.inner if isinstance(memory, sync.Memory) else memory
        if not isinstance(store, SupportsRecords):
            raise Unsupported(f"{type(store).__name__} keeps no records, which LlamaIndex's Memory needs")
        self._store, self._records, self._owner = store, store, owner
        self._chats = DaramChatStore(store, owner=owner)
        self._synchronous = isinstance(memory, sync.Memory)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex writes down for it."""
        return "DaramMemoryStore"

    async def get_messages(
        self,
        key: str,
        status: MessageStatus | None = MessageStatus.ACTIVE,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[ChatMessage]:
        """The messages of the queue, the archived ones, or (None) both, the oldest first."""
        found = (await self._run(self._stored(key, status)))[offset or 0 :][:limit]
        return [from_message(message) for message in found]

    async def count_messages(self, key: str, status: MessageStatus | None = MessageStatus.ACTIVE) -> int:
        """How many there are; it reads them."""
        return len(await self._run(self._stored(key, status)))

    async def add_message(self, key: str, message: ChatMessage, status: MessageStatus = MessageStatus.ACTIVE) -> None:
        """Add a message to the queue."""
        await self.add_messages(key, [message], status)

    async def add_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Add messages to the queue, each hundred in one piece."""
        _check(status)
        made = [to_message(message) for message in messages]
        await self._run(append_all(self._store, self._owner, key, made))

    async def set_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Replace queue and archive in one piece; see ``DaramChatStore.aset_messages``."""
        _check(status)
        await self._run(outcome(self._set(key, messages)))

    async def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete a message by its place among all; returns it, or None."""
        return await self._run(self._chats.adelete_message(key, idx))

    async def delete_messages(self, key: str, status: MessageStatus | None = None) -> None:
        """Delete the messages of the queue, the archived ones, or (None) all."""
        if status is None:
            await self._run(outcome(self._set(key, [])))
        else:
            await self._run(self._drop(key, status, None))

    async def delete_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Delete the first messages of the queue and return them."""
        return await self._run(self._drop(key, MessageStatus.ACTIVE, max(n, 0)))

    async def archive_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Take the first messages out of the queue and return them. Two who do so at once may take the same."""
        return await self._run(outcome(self._archive(key, n)))

    async def get_keys(self) -> list[str]:
        """The ids of the owner's conversations, the one changed last first."""
        return await self._run(self._chats.aget_keys())

    # --- helpers ---

    async def _run(self, work: Coroutine[Any, Any, R]) -> R:
        """Where the store was opened by ``daram.sync``: on its loop, whichever loop LlamaIndex made for this call."""
        if not self._synchronous:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, sync.portal().loop))

    async def _mark(self, key: str) -> tuple[_Mark | None, str | None]:
        """Which message was archived last, and the etag of the record that says so."""
        found = await self._records.get_record(self._owner, ARCHIVED, key)
        return (None, None) if found is None else (msgspec.json.decode(found.value, type=_Mark), found.etag)

    async def _stored(self, key: str, status: MessageStatus | None) -> list[Message]:
        mark = None if status is None else (await self._mark(key))[0]
        if status is MessageStatus.ARCHIVED and mark is None:
            return []
        queue: list[Message] = []
        archived: list[Message] = []
        cursor = None
        part = queue
        while part is queue or status is MessageStatus.ARCHIVED:
            try:
                page = await self._store.messages(self._owner, key, limit=_PAGE, cursor=cursor, order="desc")
            except NotFound:
                break
            for message in page.items:
                if mark is not None and mark.covers(message):
                    part = archived
                part.append(message)
            cursor = page.next_cursor
            if cursor is None:
                break
        return (archived if status is MessageStatus.ARCHIVED else queue)[::-1]

    async def _archive(self, key: str, n: int) -> list[ChatMessage]:
        taken: list[Message] | None = None
        while True:
            _, etag = await self._mark(key)
            queue = await self._stored(key, MessageStatus.ACTIVE)
            taken = queue[: max(n, 0)] if taken is None else taken
            here = {message.id for message in queue}
            left = [message for message in taken if message.id in here]
            if not left:
                break
            value = msgspec.json.encode(_Mark(seq=left[-1].seq, created_at=left[-1].created_at))
            try:
                await again(partial(self._records.put_record, self._owner, ARCHIVED, key, value, expect=etag))
                break
            except Conflict:
                pass  # somebody else archived meanwhile, or it was this very call
        return [from_message(message) for message in taken]

    async def _set(self, key: str, messages: list[ChatMessage]) -> None:
        _, etag = await self._mark(key)
        await self._chats.aset_messages(key, messages)
        if etag is None:
            return
        # Afterwards: where the list is refused, the archive stays. What is new is younger than the mark, which does not
        # cover it.
        try:
            await again(lambda: self._records.delete_record(self._owner, ARCHIVED, key, expect=etag))
        except Conflict:
            pass  # somebody archived of the new list already

    async def _drop(self, key: str, status: MessageStatus, n: int | None) -> list[ChatMessage]:
        dropped = []
        for message in (await self._stored(key, status))[:n]:
            try:
                await again(partial(self._store.delete_message, self._owner, key, message.id))
            except NotFound:
                continue  # somebody else did
            dropped.append(from_message(message))
        return dropped


def _check(status: MessageStatus) -> None:
    if status is not MessageStatus.ACTIVE:
        raise InvalidInput("status", "must be active: what is added goes to the end of the queue")
