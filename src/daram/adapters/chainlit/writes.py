"""How what Chainlit makes, changes or removes is stored: a step as a message, beside one, or as a record."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from daram.adapters.chainlit import records as side
from daram.adapters.chainlit import steps
from daram.errors import Conflict, Gone, InvalidInput, NotFound
from daram.model import Conversation, Message
from daram.store.base import Store
from daram.text.clean import clean_text

if TYPE_CHECKING:
    from chainlit.step import StepDict
    from chainlit.types import Feedback

_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # seconds
_MESSAGES: Final = "messages"


@dataclass
class Beginning:
    """What the tries to begin a thread know: once it was ``there``, one that is deleted is not begun again."""

    there: bool = False


class StepWriter:
    """Writes threads and steps; each operation may be done twice. ``messages``: whether a message is stored as one.

    Operations on one step have to come one after the other, as do those that add messages: ``lines`` says behind what.
    """

    def __init__(self, store: Store, records: side.SideRecords, *, messages: bool) -> None:
        self._store = store
        self._side = records
        self._messages = messages

    def lines(self, step: StepDict) -> tuple[str, ...]:
        """A message waits for those before it, everything for what was said of the same step before."""
        own = of_step(step["id"])
        # One without a text becomes a message later, and may have to wait for a thread that another message makes.
        return (_MESSAGES, own) if self._messages and step["type"] in steps.ROLES and step.get("output") else (own,)

    async def keep(self, owner: str, step: StepDict, *, new: bool) -> None:
        """Store a step. ``new``: as it was made; what was said of it since stays."""
        if step["type"] in steps.ROLES:
            await self._keep_message(owner, step, new)
        elif await self.appears(owner, step["threadId"]):
            await self._put(owner, step, dict(step), new)

    async def drop(self, owner: str, thread: str, step_id: str) -> None:
        """Delete a step with all that belongs to it, its message and its elements too."""
        known = await self._side.get(owner, side.STEP, thread, step_id) or {}
        if parent := known.get("parentId"):
            await self._side.delete(owner, side.CHILD, thread, parent, step_id)
        for namespace in (side.STEP, *side.FEEDBACK.values(), side.FAVORITE):
            await self._side.delete(owner, namespace, thread, step_id)
        await self._side.delete_elements_of(owner, thread, step_id)
        if self._messages:
            try:
                await self._store.delete_message(owner, thread, step_id)
            except NotFound:
                pass

    async def rate(self, owner: str, thread: str, feedback: Feedback) -> None:
        """Keep an opinion of a step in place of the other one. Raises ``NotFound``."""
        await self._store.get(owner, thread)
        value = {"value": feedback.value, "comment": feedback.comment}
        await self._side.put(owner, side.FEEDBACK[feedback.value], (thread, feedback.forId), value)
        await self._side.delete(owner, side.FEEDBACK[1 - feedback.value], thread, feedback.forId)

    async def mark(self, owner: str, step: StepDict, favorite: bool) -> None:
        """Keep a step as a favourite, or no longer, and what it has become. Raises ``NotFound``."""
        ids = (step["threadId"], step["id"])
        await self._store.get(owner, ids[0])
        if favorite:
            await self._side.put(owner, side.FAVORITE, ids, step)
        else:
            await self._side.delete(owner, side.FAVORITE, *ids)
        await self.keep(owner, step, new=False)

    async def change_thread(
        self,
        owner: str,
        thread: str,
        name: str | None,
        metadata: dict[str, Any] | None,
        tags: list[str] | None,
        *,
        beginning: Beginning | None,
    ) -> None:
        """Rename a thread, or add to what is kept of it. ``beginning``: it is made, and named after its start."""
        conversation = await self.conversation(owner, thread)
        if beginning is not None and self._messages:
            if conversation is None and not beginning.there:
                try:
                    conversation = await self._store.create(owner, id=thread, title=steps.title_of(name))
                except Conflict:
                    conversation = await self.conversation(owner, thread)
            beginning.there = True
        if conversation is None:
            return  # a late word on a thread that was deleted, or one that its Chatbot is about to make
        if beginning is None:
            title = None if name is None else clean_text(name)[:500]
        else:
            title = steps.title_of(name) if self._messages and conversation.title is None else None
        if title is not None:
            await self._store.update(owner, thread, title=title)
        if metadata is not None or tags is not None:
            await self._side.merge_session(owner, thread, metadata or {}, tags)

    async def conversation(self, owner: str, thread: str) -> Conversation | None:
        """The thread's conversation, or None."""
        try:
            return await self._store.get(owner, thread)
        except (NotFound, InvalidInput):  # an id that no conversation can have is one that none has
            return None

    async def appears(self, owner: str, thread: str) -> bool:
        """Whether the thread is there, or appears in a moment: Chainlit makes it beside what it makes in it.

        One that does not was deleted, and what comes late for it is dropped.
        """
        for pause in (*_PAUSES, 0.0):
            if await self.conversation(owner, thread) is not None:
                return True
            await asyncio.sleep(pause)
        return False

    async def _keep_message(self, owner: str, step: StepDict, new: bool) -> None:
        thread, text = step["threadId"], clean_text(step.get("output") or "")
        beside = steps.extras(step)
        # A new one is stored at once: where it is there already, the store says so.
        stored = None if new and self._messages and text else await self._message(owner, thread, step["id"])
        if stored is None and self._messages:
            if not text:  # an answer that is about to be streamed, or one that holds elements only
                if await self.appears(owner, thread):
                    await self._put(owner, step, beside | {"id": step["id"], "output": ""}, new)
                return
            if not await self._is_running(owner, step):
                stored = await self._append(owner, step, text)
                if stored is None:
                    return
        if stored is None and not await self.appears(owner, thread):
            return
        if stored is not None and text and text != stored.text:
            beside["output"] = text
        parent = step.get("parentId")
        if parent and not new:  # it may have been one without a text until now
            await self._side.delete(owner, side.CHILD, thread, parent, step["id"])
        await self._side.put(owner, side.STEP, (thread, step["id"]), beside, new=new)

    async def _put(self, owner: str, step: StepDict, value: dict[str, Any], new: bool) -> None:
        thread = step["threadId"]
        await self._side.put(owner, side.STEP, (thread, step["id"]), value, new=new)
        if parent := step.get("parentId"):
            await self._side.put(owner, side.CHILD, (thread, parent, step["id"]), {"id": step["id"]})

    async def _append(self, owner: str, step: StepDict, text: str) -> Message | None:
        # Exactly what ``daram.user(text, id=…)`` makes: a Chatbot that is given the same message stores it once.
        message = Message(id=step["id"], role=steps.ROLES[step["type"]], text=text)
        try:
            return (await self._store.append(owner, step["threadId"], [message], create=True)).messages[0]
        except Gone:
            return None  # the thread or the message was deleted while Chainlit was still writing
        except Conflict:
            return await self._message(owner, step["threadId"], step["id"])

    async def _message(self, owner: str, thread: str, id: str) -> Message | None:
        try:
            return await self._store.message(owner, thread, id)
        except NotFound:
            return None

    async def _is_running(self, owner: str, step: StepDict) -> bool:
        """Whether a Chatbot is making this answer, which it will store itself."""
        if step["type"] != "assistant_message":
            return False
        try:
            return any(answer.id == step["id"] for answer in await self._store.answers(owner, step["threadId"]))
        except NotFound:
            return False


def of_step(id: str) -> str:
    """The line of what is said of one step, or of one element."""
    return f"of {id}"
