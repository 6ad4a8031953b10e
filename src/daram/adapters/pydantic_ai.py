"""Pydantic AI's conversation store on a Daram store: its log of messages is a Daram conversation, branches included.

::

    store = DaramConversationStore(memory, owner="alice")
    conversation = await store.load("forest", limit=50) or Conversation(conversation_id="forest")
    result = await agent.run(prompt, conversation=conversation)
    await store.save(result)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC
from functools import partial
from typing import Any, Final

from daram.adapters.versions import require

require("the adapter for Pydantic AI", "pydantic_ai", "pydantic-ai-slim", "pydantic-ai", oldest="2.66", below="3")

from pydantic import TypeAdapter
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
)
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    SystemPromptPart,
    ToolReturnPart,
    UserPromptPart,
)

from daram import sync
from daram.adapters.appending import again, outcome
from daram.errors import Conflict, InvalidInput, NotFound, Unsupported
from daram.model import ROOT, Message, Record, Role
from daram.store.base import Store, SupportsRecords
from daram.store.jsonpart import json_of, json_part
from daram.store.paging import items
from daram.text.clean import clean_text

__all__ = ["DaramConversationStore"]

EXACT: Final = "pydantic_ai"
"""The type of the part that holds a message as Pydantic AI has it."""

RECORD: Final = "pydantic_ai.record"
ENTRY: Final = "pydantic_ai.entry"
_BATCH: Final = 100
_PAGE: Final = 100
_GOING: Final = b"deleted\n"
"""In front of a record whose conversation is being deleted: whoever finds it ends that, if nobody else does. A line
between the two says when the conversation was made: one that begins anew under its id is another."""
_records = TypeAdapter(ConversationRecord)


class DaramConversationStore(ConversationStore):
    """The conversations of ``owner`` in ``memory`` (of ``daram.open`` or ``daram.sync.open``), which must keep records
    and is not closed with it.

    A save writes what is new, and reads nothing of what is there; ``load(limit=…)`` reads that many messages. Of two
    savers one gets ``ConversationConflict``, and leaves nothing behind. A fork has copies of what it keeps: so deleting
    a conversation deletes all of it, and of it alone.

    ``scope`` is kept beside the owner: whose something is is the owner's to say.
    """

    def __init__(self, memory: Store | sync.Memory, *, owner: str) -> None:
        store = memory.inner if isinstance(memory, sync.Memory) else memory
        if not isinstance(store, SupportsRecords):
            raise Unsupported(f"{type(store).__name__} keeps no records, which Pydantic AI's conversations need")
        self._store: Store = store
        self._records: SupportsRecords = store
        self.owner = owner

    # --- what Pydantic AI asks for ---

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """What is kept of a conversation beside its messages; None where there is none.

        A deletion that was cut off is ended here.
        """
        return (await self._record(conversation_id))[0]

    async def read_records(self, *, scope: str | None = None, limit: int | None = None) -> Sequence[ConversationRecord]:
        """The conversations, the one saved last first. It reads the records of all of them, and nothing else."""
        found: list[ConversationRecord] = []
        listed = items(lambda cursor: self._records.scan_records(self.owner, RECORD, limit=_PAGE, cursor=cursor))
        async for kept in listed:
            record = await self._there(kept)
            if record is not None and (scope is None or record.scope == scope):
                found.append(record)
        return sorted(found, key=lambda record: record.updated_at, reverse=True)[:limit]

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Store the new messages, then the record: a crash in between leaves the conversation as it was before.

        Where it is cancelled, what was begun is finished first.
        """
        await outcome(self._write(record, new_entries, expected_revision))

    async def _write(
        self, record: ConversationRecord, new_entries: Sequence[ConversationEntry], expected_revision: str | None
    ) -> None:
        id = record.conversation_id
        stored, etag = await self._record(id)
        if (None if stored is None else stored.revision) != expected_revision:
            raise ConversationConflict(id)
        known = (stored.head_id, *stored.branches) if stored is not None else ()
        if stored is None and record.forked_from is not None and record.forked_at is not None:
            await self._begin(id)
            await self._copy(record.forked_from, record.forked_at, id)
        elif stored is None:
            await self._begin(id)
        elif (head := record.head_id) is not None and not new_entries and head not in known:
            await self._see_that_it_has(id, head)
        added = await self._append(id, new_entries)
        put = await self._put(id, _records.dump_json(record), etag)
        if put is None and not await self._went_on(id, added):
            await self._take_back(id, added)
            raise ConversationConflict(id)
        if stored is not None and not new_entries and record.head_id != stored.head_id:
            await self._use(id, record.head_id)

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Delete a conversation with all its messages and branches, for every door. Forks keep what they copied.

        Cut off, it is ended by whoever looks next for the conversation.
        """
        await outcome(self._delete(conversation_id, expected_revision))

    async def _delete(self, id: str, expected_revision: str) -> None:
        stored, etag = await self._record(id)
        if stored is None or stored.revision != expected_revision:
            raise ConversationConflict(id)
        made = await self._made(id)
        going = await self._put(id, _GOING + made + b"\n" + _records.dump_json(stored), etag)
        if going is None:
            raise ConversationConflict(id)
        await self._end(stored, made, going)

    async def _made(self, id: str) -> bytes:
        """When the conversation was made; nothing where there is none."""
        try:
            return (await self._store.get(self.owner, id)).created_at.astimezone(UTC).isoformat().encode()
        except NotFound:
            return b""

    async def _end(self, record: ConversationRecord, made: bytes, etag: str) -> None:
        """What is left to be deleted of a conversation whose record says so: its entries, itself, the record."""
        id = record.conversation_id
        ids: set[str] = set()
        for head in [head for head in (record.head_id, *record.branches) if head is not None]:
            try:
                async for message in self._backwards(id, head, None):
                    if message.id in ids:
                        break
                    ids.add(message.id)
            except NotFound:
                continue  # it was done so far, or by another door
        entries = sorted(ids)
        for start in range(0, len(entries), _BATCH):
            await asyncio.gather(*(self._forget(entry, id) for entry in entries[start : start + _BATCH]))
        now = await self._records.get_record(self.owner, RECORD, id)
        if now is None or now.etag != etag:
            return  # somebody else came to the end; what is there is a new one
        if made and await self._made(id) == made:
            try:
                await again(lambda: self._store.delete(self.owner, id))
            except NotFound:
                pass
        try:
            await again(lambda: self._records.delete_record(self.owner, RECORD, id, expect=etag))
        except Conflict:
            pass

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """One message by the id of its entry. Raises ``LookupError``."""
        for home in await self._homes(entry_id):
            try:
                return _entry(await self._store.message(self.owner, home, entry_id))
            except NotFound:
                continue
        raise KeyError(entry_id)

    async def read_history(self, head_id: str | None, *, limit: int | None = None) -> list[ConversationEntry]:
        """The messages up to ``head_id``, the last ``limit`` of them; one read where they are on the branch in use."""
        if head_id is None or limit == 0:
            return []
        for home in await self._homes(head_id):
            # All of the branch in use only where a step back leads nowhere: another door deleted a message.
            for bound in dict.fromkeys((limit, None)):
                found: list[ConversationEntry] = []
                try:
                    async for message in self._backwards(home, head_id, bound):
                        found.append(_entry(message))
                        if len(found) == limit:
                            break
                except NotFound:
                    continue
                if found:
                    return found[::-1]
        raise KeyError(head_id)

    # --- helpers ---

    async def _record(self, conversation_id: str) -> tuple[ConversationRecord | None, str | None]:
        try:
            found = await self._records.get_record(self.owner, RECORD, conversation_id)
        except InvalidInput:  # an id that no conversation can have is one that none has
            return None, None
        record = None if found is None else await self._there(found)
        return (None, None) if found is None or record is None else (record, found.etag)

    async def _there(self, found: Record) -> ConversationRecord | None:
        if not found.value.startswith(_GOING):
            return _records.validate_json(found.value)
        made, _, record = found.value.removeprefix(_GOING).partition(b"\n")
        await outcome(self._end(_records.validate_json(record), made, found.etag))
        return None

    async def _put(self, id: str, value: bytes, expect: str | None) -> str | None:
        """Put a conversation's record and return its etag; None where another one was faster."""
        try:
            put = await again(lambda: self._records.put_record(self.owner, RECORD, id, value, expect=expect))
        except Conflict:
            # Its own first try may be what is in the way.
            found = await self._records.get_record(self.owner, RECORD, id)
            return found.etag if found is not None and found.value == value else None
        return put.etag

    async def _went_on(self, id: str, added: list[str]) -> bool:
        """Whether the record that is there follows these messages: then theirs was put, though nobody was told so."""
        winner = await self.read_record(id)
        if winner is None or winner.head_id is None or not added:
            return False
        try:
            last = await self._store.message(self.owner, id, added[-1])
            async for message in self._backwards(id, winner.head_id, _PAGE):
                if message.seq <= last.seq:
                    return message.id == last.id
        except NotFound:
            pass
        return False

    async def _homes(self, entry_id: str) -> list[str]:
        """The conversations that a message is in: the one that it was said in, and the forks of it."""
        prefix = _key(entry_id, "")
        page = await self._records.scan_records(self.owner, ENTRY, prefix, limit=_PAGE)
        return [record.key.removeprefix(prefix) for record in page.items]

    async def _backwards(self, id: str, head: str, limit: int | None) -> AsyncIterator[Message]:
        """From ``head`` to the beginning, by pages of the branch in use as far as it is on that, else step by step.

        ``limit``: how many are wanted; a branch that does not begin in the first page is then not looked for.
        """
        size = _PAGE if limit is None else min(limit, _PAGE)
        seen, cursor = False, None
        beside: dict[str, Message] = {}
        while True:
            page = await self._store.messages(self.owner, id, limit=size, cursor=cursor, order="desc")
            for message in page.items:
                seen = seen or message.id == head
                if seen:
                    yield message
                else:
                    beside[message.id] = message
            cursor = page.next_cursor
            if cursor is None or not (seen or limit is None):
                break
        above = None if seen else head
        while above is not None:
            message = beside.get(above) or await self._store.message(self.owner, id, above)
            yield message
            above = message.parent

    async def _see_that_it_has(self, id: str, entry_id: str) -> None:
        if id not in await self._homes(entry_id):
            raise ConversationConflict(id)

    async def _begin(self, id: str) -> None:
        try:
            await again(lambda: self._store.create(self.owner, id=id))
        except Conflict:
            pass  # another door began it, or the save before this one was cut off

    async def _append(self, id: str, entries: Sequence[ConversationEntry]) -> list[str]:
        messages = [(_message(entry), entry.parent_id) for entry in entries]
        await self._append_all(id, messages)
        return [message.id for message, _ in messages]

    async def _append_all(self, id: str, messages: list[tuple[Message, str | None]]) -> None:
        for start in range(0, len(messages), _BATCH):
            batch = messages[start : start + _BATCH]
            try:
                await again(partial(self._append_batch, id, batch))
            except NotFound:  # deleted, or the message that they follow was
                raise ConversationConflict(id) from None
            await asyncio.gather(*(self._remember(message.id, id) for message, _ in batch))

    async def _append_batch(self, id: str, batch: list[tuple[Message, str | None]]) -> None:
        parent = ROOT if batch[0][1] is None else batch[0][1]
        await self._store.append(self.owner, id, [message for message, _ in batch], parent=parent)

    async def _remember(self, entry: str, id: str) -> None:
        await again(lambda: self._records.put_record(self.owner, ENTRY, _key(entry, id), b""))

    async def _forget(self, entry: str, id: str) -> None:
        await again(lambda: self._records.delete_record(self.owner, ENTRY, _key(entry, id)))

    async def _copy(self, source: str, end: str, id: str) -> None:
        """What a fork keeps of another conversation, with the same ids."""
        try:
            history = [message async for message in self._backwards(source, end, None)][::-1]
        except NotFound:
            raise ConversationConflict(id) from None
        await self._append_all(id, [(_anew(message), message.parent) for message in history])

    async def _take_back(self, id: str, added: list[str]) -> None:
        """What was stored for a save that came second: no door shall show it."""
        for message in reversed(added):
            try:
                await again(partial(self._store.delete_message, self.owner, id, message))
            except NotFound:
                pass
            await self._forget(message, id)
        winner = await self.read_record(id)
        if added and winner is not None:
            await self._use(id, winner.head_id)

    async def _use(self, id: str, head: str | None) -> None:
        """Have the other doors show the branch that this is the end of."""
        if head is not None:
            try:
                await again(lambda: self._store.use_branch(self.owner, id, head))
            except NotFound:
                pass  # deleted meanwhile


def _key(entry_id: str, conversation_id: str) -> str:
    return f"{entry_id}/{conversation_id}"


def _message(entry: ConversationEntry) -> Message:
    data: Any = ModelMessagesTypeAdapter.dump_python([entry.message], mode="json")[0]
    role, text = _said(entry.message)
    return Message(id=entry.id, role=role, text=clean_text(text), parts=(json_part(EXACT, data, "new_entries"),))


def _anew(message: Message) -> Message:
    return Message(id=message.id, role=message.role, text=message.text, parts=message.parts, metadata=message.metadata)


def _said(message: ModelMessage) -> tuple[Role, str]:
    """Who said a message, for the other doors, and its text."""
    if not isinstance(message, ModelRequest):
        return "assistant", message.text or ""
    asked = [part for part in message.parts if isinstance(part, UserPromptPart)]
    if asked:
        return "user", "\n\n".join(_text(part.content) for part in asked)
    if any(isinstance(part, ToolReturnPart) for part in message.parts):
        returned = (part for part in message.parts if isinstance(part, ToolReturnPart))
        return "tool", "\n\n".join(part.model_response_str() for part in returned)
    instructions = [part.content for part in message.parts if isinstance(part, SystemPromptPart)]
    return ("system", "\n\n".join(instructions)) if instructions else ("user", "")


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(part for part in content if isinstance(part, str))


def _entry(message: Message) -> ConversationEntry:
    for part in message.parts:
        if part.type == EXACT:
            found = ModelMessagesTypeAdapter.validate_python([json_of(part)])[0]
            return ConversationEntry(id=message.id, parent_id=message.parent, message=found)
    raise InvalidInput("entry_id", f"{message.id!r} is a message of another door")
