"""A thread's messages as a conversation for the other doors."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from typing import Any

import msgspec

from daram import model
from daram.adapters.langgraph import messages as lists
from daram.adapters.langgraph.lists import Added
from daram.adapters.langgraph.records import Space
from daram.adapters.langgraph.tries import again
from daram.errors import Conflict, Gone, InvalidInput, NotFound
from daram.ids import conversation_key
from daram.llm.langchain_messages import to_message
from daram.store.base import Store

log = logging.getLogger("daram.langgraph")

_BATCH = 100
_CHARS = 100_000
_FEW_CHARS = 1000
_TRIES = 3
_MISSING = "the messages of a step are not in the conversation of their thread: %s"


class Projection:
    """Writes what a step added behind what the thread's messages stood behind: an edit becomes a branch.

    Each write is made again as ``tries`` says; where that is in vain its error is the step's.
    """

    def __init__(self, store: Store, space: Space) -> None:
        self._store = store
        self._owner = space.owner
        self._id = conversation_id(space)

    async def append(self, added: Added) -> NotFound | None:
        """Append; the ids are made of what is said and where, so that to do it again changes nothing.

        Returns why it cannot be: ``Gone`` (the conversation, or the message that it would follow, was deleted) or
        ``NotFound`` (what it would follow is not there). Of texts of more than 100,000 characters it has the beginning,
        of a message that is too long all the same the first 1,000 of each.
        """
        parent: str | None = None if added.first else added.parent or model.ROOT
        try:
            await self._append_all(_messages(added), parent)
        except NotFound as error:
            return error
        except (Conflict, InvalidInput) as error:
            log.warning(_MISSING, error)
        return None

    async def begin(self, added: Added) -> None:
        """Append to a conversation that was deleted with its thread, which is used anew."""
        failed: NotFound | None = None
        for _ in range(_TRIES):  # a run that is still on the deleted thread may take it for its own once more
            try:
                await again(lambda: self._store.create(self._owner, id=self._id))
            except Conflict:
                pass  # by the other of two runs
            failed = await self.append(added)
            if failed is None:
                return
        log.warning(_MISSING, failed)

    async def replace(self, whole: Added | None) -> None:
        """Let the conversation be what the thread says (None: nothing), and nothing else."""
        try:
            await again(lambda: self._store.delete(self._owner, self._id))
        except NotFound:
            pass
        if whole is not None and await self.append(whole) is not None:
            await self.begin(whole)

    async def is_there(self) -> bool:
        """Whether there is a conversation; it says so in the log where there is none."""
        try:
            await again(lambda: self._store.get(self._owner, self._id))
        except NotFound as error:
            log.warning(_MISSING, error)
            return False
        return True

    async def mend(self, whole: Added) -> None:
        """Append what is missing of all that the thread says: a step may have failed between its record and this.

        What other doors deleted stays so.
        """
        messages = _messages(whole)
        try:
            ids = [whole.parent, *(message.id for message in messages)]
            start = len(messages)
            while start > 0 and not await self._has(ids[start]):
                start -= 1
            parent = ids[start] if ids[start] and await self._has(ids[start]) else model.ROOT
            for message in messages[start:]:
                try:
                    await self._append_one(message, parent)
                except Gone:
                    continue
                parent = message.id
        except (NotFound, Conflict, InvalidInput) as error:
            log.warning(_MISSING, error)

    async def _has(self, id: str) -> bool:
        try:
            await again(lambda: self._store.message(self._owner, self._id, id))
        except NotFound:
            return False
        return True

    async def _append_all(self, messages: list[model.Message], parent: str | None) -> None:
        for start in range(0, len(messages), _BATCH):
            batch = messages[start : start + _BATCH]
            try:
                await self._append(batch, parent)
            except (Conflict, InvalidInput):
                # A branch that was gone along before: the first of these are there. Or one of them is refused.
                for message in batch:
                    await self._append_one(message, parent)
                    parent = message.id
            parent = batch[-1].id

    async def _append_one(self, message: model.Message, parent: str | None) -> None:
        try:
            await self._append([message], parent)
        except InvalidInput:
            # Were it missing, so would be all that comes behind it.
            await self._append([_in_short(message)], parent)

    async def _append(self, messages: list[model.Message], parent: str | None) -> None:
        await again(lambda: self._store.append(self._owner, self._id, messages, parent=parent, create=True))

    async def take_back(self, added: Added) -> None:
        """Delete what was appended: the conversation is of a thread that was begun anew."""
        await self.drop(message.id for message in _messages(added))

    async def drop(self, ids: Iterable[str]) -> None:
        """Delete messages, those of them that are there."""
        for id in ids:
            try:
                await again(functools.partial(self._store.delete_message, self._owner, self._id, id))
            except NotFound:
                pass

    async def delete(self) -> None:
        """Delete the conversation. One that is not there yet is deleted too: what is on its way to it finds it gone."""
        for _ in range(_TRIES):
            try:
                await again(lambda: self._store.delete(self._owner, self._id))
                return
            except Gone:
                return
            except NotFound:
                pass
            try:
                await again(lambda: self._store.create(self._owner, id=self._id))
            except Conflict:
                pass  # it came at this moment


def _messages(added: Added) -> list[model.Message]:
    at = added.parent
    messages: list[model.Message] = []
    for item, packed in zip(added.messages, added.packed, strict=True):
        at = lists.projected_id(at, packed)
        messages.append(_fitting(to_message(item, id=at)))
    return messages


def _fitting(message: model.Message) -> model.Message:
    """With long texts cut."""
    parts = tuple(
        model.Part(type=part.type, id=part.id, data={name: _cut(value) for name, value in part.data.items()})
        for part in message.parts
    )
    return msgspec.structs.replace(message, text=_cut(message.text), parts=parts)


def _in_short(message: model.Message) -> model.Message:
    """The beginnings of its texts, and nothing that could be refused."""
    parts = tuple(
        model.Part(
            type=part.type,
            data={name: _cut(text, _FEW_CHARS) for name, text in part.data.items() if isinstance(text, str)},
        )
        for part in message.parts[:_BATCH]
    )
    return msgspec.structs.replace(message, text=_cut(message.text, _FEW_CHARS), parts=parts, usage=None)


def _cut(value: Any, chars: int = _CHARS) -> Any:
    return value[:chars] + "…" if isinstance(value, str) and len(value) > chars else value


def conversation_id(space: Space) -> str:
    """The conversation of a thread: it has the thread's id, where a conversation can have it."""
    thread = space.thread
    if len(thread) <= 256 and thread.isprintable():
        return thread
    return "lg_" + conversation_key(space.owner, thread).hex()
