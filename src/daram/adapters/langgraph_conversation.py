"""A thread's messages as a conversation for the other doors."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from daram import model
from daram.adapters import langgraph_messages as lists
from daram.adapters.langgraph_lists import Added
from daram.adapters.langgraph_records import Space
from daram.errors import Conflict, Gone, InvalidInput, NotFound
from daram.ids import conversation_key
from daram.llm.langchain_messages import to_message
from daram.store.base import Store

log = logging.getLogger("daram.langgraph")

_BATCH = 100
_CHARS = 100_000


class Projection:
    """Writes what a step added behind what the thread's messages stood behind: an edit becomes a branch."""

    def __init__(self, store: Store, space: Space) -> None:
        self._store = store
        self._owner = space.owner
        self._id = conversation_id(space)

    async def append(self, added: Added) -> None:
        """Append; the ids are made of what is said and where, so that to do it again changes nothing.

        A conversation that cannot take it (deleted by another door) is left as it is: the thread itself is whole
        without it. Of texts of more than 100,000 characters it has the beginning.
        """
        messages: list[model.Message] = []
        at = added.parent
        for item, packed in zip(added.messages, added.packed, strict=True):
            at = lists.projected_id(at, packed)
            messages.append(_fitting(to_message(item, id=at)))
        parent: str | None = None if added.first else added.parent or model.ROOT
        try:
            try:
                await self._append_all(messages, parent)
            except Gone:
                if not added.first:
                    raise
                # A thread that begins: it, and so its conversation, had been deleted, and is used anew.
                await self._create()
                await self._append_all(messages, parent)
        except (NotFound, Conflict, InvalidInput) as error:
            log.warning("the messages of a step are not in the conversation of their thread: %s", error)

    async def _append_all(self, messages: list[model.Message], parent: str | None) -> None:
        for start in range(0, len(messages), _BATCH):
            batch = messages[start : start + _BATCH]
            try:
                await self._append(batch, parent)
            except Conflict:
                # A branch that was gone along before: the first of these are there.
                for message in batch:
                    await self._append([message], parent)
                    parent = message.id
            parent = batch[-1].id

    async def _create(self) -> None:
        try:
            await self._store.create(self._owner, id=self._id)
        except Conflict:
            pass  # by the other of two runs

    async def _append(self, messages: list[model.Message], parent: str | None) -> None:
        await self._store.append(self._owner, self._id, messages, parent=parent, create=True)

    async def delete(self) -> None:
        """Delete the conversation, if there is one."""
        try:
            await self._store.delete(self._owner, self._id)
        except NotFound:
            pass


def _fitting(message: model.Message) -> model.Message:
    """With long texts cut: a message that is refused would be missing, and all that is behind it."""
    parts = tuple(
        model.Part(type=part.type, id=part.id, data={name: _cut(value) for name, value in part.data.items()})
        for part in message.parts
    )
    return msgspec.structs.replace(message, text=_cut(message.text), parts=parts)


def _cut(value: Any) -> Any:
    return value[:_CHARS] + "…" if isinstance(value, str) and len(value) > _CHARS else value


def conversation_id(space: Space) -> str:
    """The conversation of a thread: it has the thread's id, where a conversation can have it."""
    thread = space.thread
    if len(thread) <= 256 and thread.isprintable():
        return thread
    return "lg_" + conversation_key(space.owner, thread).hex()
