"""A thread's messages as a conversation for the other doors."""

from __future__ import annotations

import logging

from daram import model
from daram.adapters import langgraph_messages as lists
from daram.adapters.langgraph_records import Space
from daram.adapters.langgraph_threads import Added
from daram.errors import Conflict, InvalidInput, NotFound
from daram.ids import conversation_key
from daram.llm.langchain_messages import to_message
from daram.store.base import Store

log = logging.getLogger("daram.langgraph")

_BATCH = 100


class Projection:
    """Writes what a step added behind what the thread's messages stood behind: an edit becomes a branch."""

    def __init__(self, store: Store, space: Space) -> None:
        self._store = store
        self._owner = space.owner
        self._id = conversation_id(space)

    async def append(self, added: Added) -> None:
        """Append; the ids are made of what is said and where, so that to do it again changes nothing.

        A conversation that cannot take it (deleted by another door, a message above the limit) is left as it is: the
        thread itself is whole without it.
        """
        messages: list[model.Message] = []
        at = added.parent
        for item, packed in zip(added.messages, added.packed, strict=True):
            at = lists.projected_id(at, packed)
            messages.append(to_message(item, id=at))
        parent: str | None = added.parent or (None if added.first else model.ROOT)
        try:
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
        except (NotFound, Conflict, InvalidInput) as error:
            log.warning("the messages of a step are not in the conversation of their thread: %s", error)

    async def _append(self, messages: list[model.Message], parent: str | None) -> None:
        await self._store.append(self._owner, self._id, messages, parent=parent, create=True)

    async def delete(self) -> None:
        """Delete the conversation, if there is one."""
        try:
            await self._store.delete(self._owner, self._id)
        except NotFound:
            pass


def conversation_id(space: Space) -> str:
    """The conversation of a thread: it has the thread's id, where a conversation can have it."""
    thread = space.thread
    if len(thread) <= 256 and thread.isprintable():
        return thread
    return "lg_" + conversation_key(space.owner, thread).hex()
