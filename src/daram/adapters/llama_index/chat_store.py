"""LlamaIndex's chat store: each method's list is a conversation's messages."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms import ChatMessage
from llama_index.core.storage.chat_store.base import BaseChatStore
from msgspec.structs import replace

from daram import sync
from daram.adapters.appending import append_all, clear, outcome
from daram.errors import Conflict, InvalidInput, NotFound, OutcomeUnknown, Unsupported
from daram.model import Conversation, LogEntry, Message, Role
from daram.store.base import Store, SupportsTransfer
from daram.store.jsonpart import json_of, json_part
from daram.store.paging import items, newest
from daram.text.clean import clean_text

__all__ = ["DaramChatStore"]

R = TypeVar("R")

EXACT: Final = "llama_index"
"""The type of the part that holds a message as LlamaIndex has it."""

_PAGE: Final = 200
_AT_ONCE: Final = 1000  # what an engine takes in one call of ``load``
_TRIES: Final = 5
_LATER: Final = timedelta(milliseconds=1)
_ROLES: Final[dict[str, Role]] = {
    "user": "user",
    "assistant": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}


class _Seen(NamedTuple):
    """The list that is to be replaced, by its end: the ``seq`` given last, and the id of the message that got it."""

    last_seq: int
    last: str | None


class _Changed(Exception):
    """The conversation is not what it was a moment ago."""


class DaramChatStore(BaseChatStore):
    """The conversations of ``owner`` in ``memory`` (of ``daram.open`` or ``daram.sync.open``), by their ids.

    ``window``: how many messages ``get_messages`` reads, the last ones (None, as LlamaIndex expects it: all). What it
    gives never begins with the result of a tool whose call is in front of it. Messages come back as they were, in their
    order. A message by its index is found from the beginning, over all of them.
    """

    _store: Store = PrivateAttr()
    _owner: str = PrivateAttr()
    _window: int | None = PrivateAttr()

    def __init__(self, memory: Store | sync.Memory, *, owner: str, window: int | None = None) -> None:
        if window is not None and window < 1:
            raise InvalidInput("window", f"must be at least 1, or None, not {window}")
        super().__init__()
        self._store = memory.inner if isinstance(memory, sync.Memory) else memory
        self._owner = owner
        self._window = window

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex writes down for it."""
        return "DaramChatStore"

    # --- the asynchronous face ---

    async def aget_messages(self, key: str) -> list[ChatMessage]:
        """The messages, the oldest first; none where there is no conversation."""
        found, more = await self._read(key, self._window)
        return [from_message(message) for message in (_without_orphans(found) if more else found)]

    async def aset_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """Replace all that the conversation says, its other branches too, in one piece: at most 1,000 messages. What
        somebody else adds meanwhile is behind them. Where nothing is there yet, any number is added, in batches of 100
        (at most 1,000 to a conversation that is there, but empty: in one piece).

        Raises ``Conflict`` while an answer is being made there, and where somebody else replaces the list meanwhile;
        ``InvalidInput`` for more messages; ``Unsupported`` where the engine is not one that ``SupportsTransfer``.
        """
        made = [to_message(message) for message in messages]
        await outcome(self._replace(key, made))

    async def async_add_message(self, key: str, message: ChatMessage) -> None:
        """Add a message behind what is there."""
        await append_all(self._store, self._owner, key, [to_message(message)])

    async def adelete_messages(self, key: str) -> list[ChatMessage] | None:
        """Delete the conversation's messages and return them; None where there are none."""
        stored, _ = await self._read(key, None)
        await clear(self._store, self._owner, key)
        return [from_message(message) for message in stored] or None

    async def adelete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete one message by its index; returns it, or None."""
        stored, _ = await self._read(key, None)
        if not -len(stored) <= idx < len(stored):
            return None
        return await self._drop(key, stored[idx])

    async def adelete_last_message(self, key: str) -> ChatMessage | None:
        """Delete the last message; returns it, or None."""
        stored, _ = await self._read(key, 1)
        return await self._drop(key, stored[-1]) if stored else None

    async def aget_keys(self) -> list[str]:
        """The ids of the owner's conversations, the one changed last first."""
        listed = items(lambda cursor: self._store.list(self._owner, limit=_PAGE, cursor=cursor))
        return [conversation.id async for conversation in listed]

    # --- the synchronous face ---

    def get_messages(self, key: str) -> list[ChatMessage]:
        """``aget_messages``, synchronously."""
        return _run(self.aget_messages(key))

    def set_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """``aset_messages``, synchronously."""
        _run(self.aset_messages(key, messages))

    def add_message(self, key: str, message: ChatMessage) -> None:
        """``async_add_message``, synchronously."""
        _run(self.async_add_message(key, message))

    def delete_messages(self, key: str) -> list[ChatMessage] | None:
        """``adelete_messages``, synchronously."""
        return _run(self.adelete_messages(key))

    def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """``adelete_message``, synchronously."""
        return _run(self.adelete_message(key, idx))

    def delete_last_message(self, key: str) -> ChatMessage | None:
        """``adelete_last_message``, synchronously."""
        return _run(self.adelete_last_message(key))

    def get_keys(self) -> list[str]:
        """``aget_keys``, synchronously."""
        return _run(self.aget_keys())

    # --- helpers ---

    async def _read(self, key: str, window: int | None) -> tuple[list[Message], bool]:
        """The last messages, and whether there are more in front of them."""
        most = None if window is None else window + 1
        try:
            found = await newest(self._store, self._owner, key, most)
        except NotFound:
            return [], False
        more = len(found) == most
        return found[: window if more else None][::-1], more

    async def _replace(self, key: str, made: list[Message]) -> None:
        """In one transaction: whoever reads, or comes after a crash, finds the old list or the new one."""
        if not made:
            await clear(self._store, self._owner, key)
            return
        seen: _Seen | None = None
        unknown: OutcomeUnknown | None = None
        for _ in range(_TRIES):
            try:
                found = await self._store.get(self._owner, key)
                answered = await self._store.answers(self._owner, key)
            except NotFound:
                found, answered = None, []
            if found is None or (found.head is None and len(made) > _AT_ONCE):
                await append_all(self._store, self._owner, key, made)  # nothing is there that could be lost
                return
            if answered:
                await self._close_dead_answers(key)
                continue
            try:
                late: list[Message] = []
                if seen is None:
                    seen = await self._look(found)
                elif await self._id_at(key, 1) == made[0].id:
                    return  # this very call did it, though it was not told so
                else:
                    late = await self._late(found, seen)
                await self._put_in_place(found, [*made, *late])
                return
            except Unsupported:
                if found.head is not None:
                    raise
                await append_all(self._store, self._owner, key, made)
                return
            except _Changed:
                pass  # somebody said something meanwhile, which comes behind what is put here
            except OutcomeUnknown as error:
                unknown = error
        raise unknown or Conflict(f"others change the conversation {key!r} all the time; try again when they are done")

    async def _close_dead_answers(self, key: str) -> None:
        await self._store.recover(owner=self._owner, id=key)
        if await self._store.answers(self._owner, key):
            raise Conflict(
                f"an answer is being made in the conversation {key!r}, and would be lost; "
                "replace its messages when that has ended"
            )

    async def _look(self, found: Conversation) -> _Seen:
        """What is to be replaced."""
        last = await self._id_at(found.id, found.last_seq)
        if last != found.head and (await self._store.get(self._owner, found.id)).etag != found.etag:
            raise _Changed  # between the two reads
        return _Seen(found.last_seq, last)

    async def _late(self, found: Conversation, seen: _Seen) -> list[Message]:
        """What others said since then, on whichever branch."""
        if found.last_seq and seen.last_seq and await self._id_at(found.id, seen.last_seq) != seen.last:
            raise Conflict(
                f"somebody else replaced the messages of the conversation {found.id!r} meanwhile; "
                "read them, and call again with what is then to be there"
            )
        late: list[Message] = []
        after = seen.last_seq
        while entries := await self._log(found.id, after, _PAGE):
            late += [entry.message for entry in entries if not entry.deleted]
            after = entries[-1].message.seq
        return late

    async def _id_at(self, key: str, seq: int) -> str | None:
        """Which message has or had that place in the log: a deleted one keeps its id."""
        entries = await self._log(key, max(seq, 1) - 1, 1)
        return entries[0].message.id if entries and entries[0].message.seq == seq else None

    async def _log(self, key: str, after: int, limit: int) -> list[LogEntry]:
        try:
            return await self._transfer().log(self._owner, key, after=after, limit=limit)
        except NotFound:
            raise _Changed from None

    def _transfer(self) -> SupportsTransfer:
        if not isinstance(self._store, SupportsTransfer):
            raise Unsupported(f"{type(self._store).__name__} cannot replace a conversation as a whole; delete it first")
        return self._store

    async def _put_in_place(self, found: Conversation, messages: list[Message]) -> None:
        if len(messages) > _AT_ONCE:
            raise InvalidInput(
                "messages",
                f"are {len(messages):,}, but at most {_AT_ONCE:,} replace what is there at once; "
                "call delete_messages first",
            )
        # Younger than what it replaces, whatever this machine's clock says: by that a mark of the archive knows it.
        now = max(datetime.now(UTC), found.updated_at + _LATER)
        entries = [
            LogEntry(message=replace(message, seq=seq, created_at=message.created_at or now), parent=seq - 1)
            for seq, message in enumerate(messages, 1)
        ]
        changed = replace(found, version=found.version + 1, last_seq=len(entries), updated_at=now)
        try:
            await self._transfer().load(changed, entries, leaves=[len(entries)], expect=found.etag)
        except Conflict:
            raise _Changed from None

    async def _drop(self, key: str, message: Message) -> ChatMessage | None:
        try:
            await self._store.delete_message(self._owner, key, message.id)
        except NotFound:
            return None  # somebody else did
        return from_message(message)


def _without_orphans(messages: list[Message]) -> list[Message]:
    """Without results of tools at the beginning: endpoints refuse a result whose call they are not shown, and
    LlamaIndex's buffers hand it on."""
    start = 0
    while start < len(messages) and messages[start].role == "tool":
        start += 1
    return messages[start:]


def to_message(message: ChatMessage) -> Message:
    made = Message(role=_ROLES.get(message.role.value, "user"), text=clean_text(message.content or ""))
    if made.text and from_message(made) == message:
        return made  # one text and nothing beside it: most are
    return replace(made, parts=(json_part(EXACT, message.model_dump(mode="json"), "messages"),))


def from_message(message: Message) -> ChatMessage:
    for part in message.parts:
        if part.type == EXACT:
            return ChatMessage.model_validate(json_of(part))
    return ChatMessage(role=message.role, content=message.text)


def _run(work: Coroutine[Any, Any, R]) -> R:
    return sync.portal().run(work)
