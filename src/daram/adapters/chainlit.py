"""Chainlit's data layer on a Daram store: threads are conversations, message steps are messages.

::

    @cl.data_layer
    def data_layer():
        return DaramDataLayer(memory)

What Chainlit wants kept beside the messages (other steps, elements, feedback, users, what a session was set to) is kept
in records. Every list is paged in the store; opening a thread reads its last messages, never all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from daram.adapters.versions import require

require("the data layer for Chainlit", "chainlit", "chainlit", "chainlit", oldest="2.12", below="2.13")

from chainlit.context import ChainlitContextException, get_context
from chainlit.data.base import BaseDataLayer
from chainlit.data.utils import queue_until_user_message
from chainlit.types import Feedback, PageInfo, PaginatedResponse, Pagination, ThreadDict, ThreadFilter
from chainlit.user import PersistedUser, User

from daram import sync
from daram.adapters import chainlit_records as side
from daram.adapters import chainlit_steps as steps
from daram.adapters.chainlit_shown import shown_steps
from daram.errors import Conflict, Gone, InvalidInput, NotFound, Unsupported
from daram.model import Conversation, Message
from daram.store.base import Store, SupportsRecords

if TYPE_CHECKING:
    from chainlit.element import Element, ElementDict
    from chainlit.step import StepDict

__all__ = ["DaramDataLayer"]

_ANONYMOUS = "anonymous"
_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # seconds

_until_first_message: Any = queue_until_user_message  # which has no types
# In a request Chainlit asks for the user (``get_user``) before anything of theirs, but then names the thread only.
_asking: ContextVar[str | None] = ContextVar("daram_chainlit_user", default=None)


def _note(message: Message) -> str:
    return "" if message.role != "assistant" or message.status == "complete" else f"*({message.status})*"


class DaramDataLayer(BaseDataLayer):
    """Chainlit's data layer on ``memory`` (of ``daram.open`` or ``daram.sync.open``), which must keep records
    (``SupportsRecords``); closing it closes the store.

    ``owner``: whose everything is, or a function that says whose at each call; by default, and where that says None,
    the identifier of Chainlit's user (``anonymous`` without a login).
    ``messages=False``: a ``daram.Chatbot`` stores the messages and makes the titles; the layer keeps the rest.
    ``note``: what to show below a stored message, as Markdown (by default its status);
    ``elements``: what belongs to one beside what Chainlit has stored, by thread and message;
    ``deleted``: deletes what else there is of a thread that is deleted, by owner and thread: an agent's checkpoints.
    ``history``: how many messages of a thread are shown when it is opened, the last ones (at most 1,000).
    ``search``: how many conversations, the one changed last first, one search by title looks at.

    A text that Chainlit changes later is kept beside the message, which stays as it was first said.
    """

    def __init__(
        self,
        memory: Store | sync.Memory,
        *,
        owner: str | Callable[[], str | None] | None = None,
        messages: bool = True,
        note: Callable[[Message], str] = _note,
        elements: Callable[[str, Message], list[ElementDict]] | None = None,
        deleted: Callable[[str, str], Awaitable[None]] | None = None,
        history: int = 200,
        search: int = 2000,
    ) -> None:
        store = memory.inner if isinstance(memory, sync.Memory) else memory
        if not isinstance(store, SupportsRecords):
            raise Unsupported(f"{type(store).__name__} keeps no records, which Chainlit's data layer needs")
        self._store: Store = store
        self._side = side.SideRecords(store)
        self._owner_given = owner
        self._messages = messages
        self._note = note
        self._elements = elements
        self._deleted = deleted
        self._history = history
        self._search = search

    # --- users: the identifier is the id and the owner ---

    async def get_user(self, identifier: str) -> PersistedUser | None:
        """The user, if they have logged in before."""
        _asking.set(identifier)
        fields = await self._side.get(identifier, side.USER, "user")
        return None if fields is None else PersistedUser(**fields)

    async def create_user(self, user: User) -> PersistedUser | None:
        """Keep the user. Called at each login: it changes no more than what Chainlit says of them."""
        known = await self.get_user(user.identifier)
        if known is not None and known.metadata == user.metadata:
            return known
        created = known.createdAt if known else steps.moment(datetime.now(UTC)) or ""
        kept = PersistedUser(id=user.identifier, identifier=user.identifier, createdAt=created, metadata=user.metadata)
        fields = {"id": kept.id, "identifier": kept.identifier, "createdAt": created, "metadata": kept.metadata}
        await self._side.put(user.identifier, side.USER, ("user",), fields)
        return kept

    # --- threads ---

    async def get_thread_author(self, thread_id: str) -> str:
        """Who asks, if the thread is theirs; else nobody: a thread of somebody else looks like none."""
        return self._user() if await self._conversation(self._owner(), thread_id) else ""

    async def list_threads(self, pagination: Pagination, filters: ThreadFilter) -> PaginatedResponse[ThreadDict]:
        """One page of conversations, the one changed last first, without their steps.

        A search compares titles, word by word, in at most ``search`` conversations per call; ``endCursor`` goes on.
        """
        owner = self._fixed_owner or filters.userId or self._owner()
        first = max(1, min(pagination.first, 100))
        size = first if not filters.search and filters.feedback is None else 100
        found: list[ThreadDict] = []
        cursor, looked = pagination.cursor, 0
        while True:
            page = await self._store.list(owner, limit=size, cursor=cursor)
            for index, conversation in enumerate(page.items, 1):
                looked += 1
                name = await self._name(owner, conversation)
                if await self._matches(owner, conversation.id, name, filters):
                    found.append(steps.thread_of(conversation, filters.userId or self._user(), name))
                if len(found) < first and looked < self._search:
                    continue
                if index == len(page.items):
                    return _page(found, pagination, page.next_cursor)
                # The cursor for what follows this one, without counting: conversations move while somebody pages.
                end = await self._store.list(owner, limit=index, cursor=cursor)
                return _page(found, pagination, end.next_cursor)
            cursor = page.next_cursor
            if cursor is None:
                return _page(found, pagination, None)

    async def get_thread(self, thread_id: str) -> ThreadDict | None:
        """The thread with its last messages and what belongs to them; None if this user has none of that id."""
        owner = self._owner()
        conversation = await self._conversation(owner, thread_id)
        if conversation is None:
            return None
        try:
            messages = await self._store.tail(owner, thread_id, self._history)
        except NotFound:
            return None
        session = await self._side.get(owner, side.SESSION, thread_id) or {}
        thread = steps.thread_of(conversation, self._user(), await self._name(owner, conversation))
        thread["metadata"] = session.get("metadata") or {}
        thread["tags"] = session.get("tags")
        thread["steps"] = await shown_steps(self._side, owner, thread_id, messages, self._note)
        shown = {step["id"] for step in thread["steps"]}
        elements = await self._side.elements(owner, thread_id, shown)
        if self._elements is not None:
            elements += [element for message in messages for element in self._elements(thread_id, message)]
        thread["elements"] = elements
        return thread

    async def update_thread(
        self,
        thread_id: str,
        name: str | None = None,
        user_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        tags: list[str] | None = None,
    ) -> None:
        """Rename a thread, or keep what Chainlit says of it; with ``user_id`` it begins, named after its start."""
        owner = self._fixed_owner or user_id or self._owner()
        conversation = await self._conversation(owner, thread_id)
        begins = user_id is not None or owner == _ANONYMOUS  # whom Chainlit lets rename nothing
        if begins and self._messages and conversation is None:
            try:
                conversation = await self._store.create(owner, id=thread_id, title=steps.title_of(name))
            except Conflict:
                conversation = await self._conversation(owner, thread_id)
        if conversation is None:
            return  # a late word on a thread that was deleted, or one that its Chatbot is about to make
        if name is not None and not begins:
            await self._store.update(owner, thread_id, title=name[:500])
        elif name is not None and self._messages and conversation.title is None:
            await self._store.update(owner, thread_id, title=steps.title_of(name))
        if metadata is not None or tags is not None:
            await self._side.merge_session(owner, thread_id, metadata or {}, tags)

    async def delete_thread(self, thread_id: str) -> None:
        """Delete the conversation and all that was kept beside it; a second time it is harmless."""
        owner = self._owner()
        if self._deleted is not None and await self._conversation(owner, thread_id) is not None:
            await self._deleted(owner, thread_id)
        await self._side.clear_thread(owner, thread_id)
        try:
            await self._store.delete(owner, thread_id)
        except NotFound:
            pass

    # --- steps ---

    async def _keep_step(self, step_dict: StepDict) -> None:
        owner, thread = self._owner(), step_dict["threadId"]
        if step_dict["type"] in steps.ROLES:
            await self._keep_message(owner, thread, step_dict)
        elif await self._appears(owner, thread):
            await self._put_step(owner, thread, step_dict, dict(step_dict))

    async def _drop_step(self, step_id: str) -> None:
        owner, thread = self._owner(), _open_thread()
        known = await self._side.get(owner, side.STEP, thread, step_id) or {}
        if parent := known.get("parentId"):
            await self._side.delete(owner, side.CHILD, thread, parent, step_id)
        for namespace in (side.STEP, side.FEEDBACK, side.FAVORITE):
            await self._side.delete(owner, namespace, thread, step_id)
        if self._messages:
            try:
                await self._store.delete_message(owner, thread, step_id)
            except NotFound:
                pass

    # What Chainlit shows before the first message of the user waits for it: until then there is no conversation.
    create_step = _until_first_message()(_keep_step)
    update_step = _until_first_message()(_keep_step)
    delete_step = _until_first_message()(_drop_step)

    async def _keep_message(self, owner: str, thread: str, step: StepDict) -> None:
        text = step.get("output") or ""
        beside = steps.extras(step)
        stored = await self._message(owner, thread, step["id"])
        if stored is None and self._messages:
            if not text:  # an answer that is about to be streamed, or one that holds elements only
                if await self._appears(owner, thread):
                    await self._put_step(owner, thread, step, beside | {"id": step["id"], "output": ""})
                return
            if not await self._is_running(owner, thread, step["id"]):
                stored = await self._append(owner, thread, step, text)
                if stored is None:
                    return
        if stored is None and not await self._appears(owner, thread):
            return
        if stored is not None and text and text != stored.text:
            beside["output"] = text
        if parent := step.get("parentId"):
            await self._side.delete(owner, side.CHILD, thread, parent, step["id"])
        await self._side.put(owner, side.STEP, (thread, step["id"]), beside)

    async def _put_step(self, owner: str, thread: str, step: StepDict, value: dict[str, Any]) -> None:
        await self._side.put(owner, side.STEP, (thread, step["id"]), value)
        if parent := step.get("parentId"):
            await self._side.put(owner, side.CHILD, (thread, parent, step["id"]), {"id": step["id"]})

    async def _append(self, owner: str, thread: str, step: StepDict, text: str) -> Message | None:
        # Exactly what ``daram.user(text, id=…)`` makes: a Chatbot that is given the same message stores it once.
        message = Message(id=step["id"], role=steps.ROLES[step["type"]], text=text)
        try:
            return (await self._store.append(owner, thread, [message], create=True)).messages[0]
        except Gone:
            return None  # the thread or the message was deleted while Chainlit was still writing
        except Conflict:
            return await self._message(owner, thread, step["id"])

    # --- feedback, favourites, elements ---

    async def upsert_feedback(self, feedback: Feedback) -> str:
        """Keep a user's opinion of a step: one per step, the last one counts. Returns its id. Raises ``NotFound``."""
        owner, ids = self._owner(), (feedback.threadId or _open_thread(), feedback.forId)
        await self._store.get(owner, ids[0])
        value = {"value": feedback.value, "comment": feedback.comment}
        await self._side.put(owner, side.FEEDBACK, ids, value)
        return steps.key(*ids)

    async def delete_feedback(self, feedback_id: str) -> bool:
        """Forget it; whether it was there."""
        return await self._side.delete_key(self._owner(), side.FEEDBACK, feedback_id)

    async def set_step_favorite(self, step_dict: StepDict, favorite: bool) -> StepDict:
        """Mark a message of the user as a favourite, or no longer. Raises ``NotFound``."""
        owner, ids = self._owner(), (step_dict["threadId"], step_dict["id"])
        await self._store.get(owner, ids[0])
        step_dict["metadata"] = {**(step_dict.get("metadata") or {}), "favorite": favorite}
        if favorite:
            await self._side.put(owner, side.FAVORITE, ids, step_dict)
        else:
            await self._side.delete(owner, side.FAVORITE, *ids)
        await self.update_step(step_dict)
        return step_dict

    async def get_favorite_steps(self, user_id: str) -> list[StepDict]:
        """The user's favourites, at most 1,000."""
        owner = self._fixed_owner or user_id
        return [cast("StepDict", steps.load(record.value)) async for record in self._side.scan(owner, side.FAVORITE)]

    async def get_element(self, thread_id: str, element_id: str) -> ElementDict | None:
        """An element; its content, if it was kept, is in its ``url`` (``data:``)."""
        return await self._side.element(self._owner(), thread_id, element_id)

    async def _keep_element(self, element: Element) -> None:
        owner = self._owner()
        if await self._appears(owner, element.thread_id):
            await self._side.put_element(owner, element)  # TooLarge: such an element needs a ``url`` of its own

    async def _drop_element(self, element_id: str, thread_id: str | None = None) -> None:
        for namespace in (side.ELEMENT, side.CONTENT):
            await self._side.delete(self._owner(), namespace, thread_id or _open_thread(), element_id)

    create_element = _until_first_message()(_keep_element)
    delete_element = _until_first_message()(_drop_element)

    # --- the rest of what Chainlit asks ---

    async def build_debug_url(self) -> str:
        """There is none."""
        return ""

    async def close(self) -> None:
        """Close the store; a second call is harmless."""
        await self._store.close()

    # --- helpers ---

    @property
    def _fixed_owner(self) -> str | None:
        return self._owner_given() if callable(self._owner_given) else self._owner_given

    def _owner(self) -> str:
        return self._user() if (fixed := self._fixed_owner) is None else fixed

    def _user(self) -> str:
        """Whom Chainlit asks for: it lets them see what it finds under this name, whoever owns it here."""
        try:
            user = get_context().session.user
        except ChainlitContextException:
            return _asking.get() or _ANONYMOUS
        return user.identifier if user else _ANONYMOUS

    async def _conversation(self, owner: str, thread: str) -> Conversation | None:
        try:
            return await self._store.get(owner, thread)
        except (NotFound, InvalidInput):  # an id that no conversation can have is one that none has
            return None

    async def _appears(self, owner: str, thread: str) -> bool:
        """Whether the thread is there, or appears in a moment: Chainlit makes it beside what it makes in it.

        One that does not was deleted, and what comes late for it is dropped.
        """
        for pause in (*_PAUSES, 0.0):
            if await self._conversation(owner, thread) is not None:
                return True
            await asyncio.sleep(pause)
        return False

    async def _message(self, owner: str, thread: str, id: str) -> Message | None:
        try:
            return await self._store.message(owner, thread, id)
        except NotFound:
            return None

    async def _is_running(self, owner: str, thread: str, id: str) -> bool:
        try:
            return any(answer.id == id for answer in await self._store.answers(owner, thread))
        except NotFound:
            return False

    async def _name(self, owner: str, conversation: Conversation) -> str | None:
        """The title, or the beginning of the first message where there is none yet."""
        if conversation.title is not None or conversation.head is None:
            return conversation.title
        try:
            opening = await self._store.messages(owner, conversation.id, limit=1)
        except NotFound:
            return None
        return steps.title_of(opening.items[0].text) if opening.items else None

    async def _matches(self, owner: str, thread: str, name: str | None, filters: ThreadFilter) -> bool:
        if filters.search and not steps.has_words(name or "", filters.search):
            return False
        if filters.feedback is None:
            return True
        opinions = self._side.scan(owner, side.FEEDBACK, thread)
        return any([steps.load(record.value)["value"] == filters.feedback async for record in opinions])


def _open_thread() -> str:
    try:
        return str(get_context().session.thread_id)
    except ChainlitContextException:
        raise InvalidInput("threadId", "must be given where no thread is open") from None


def _page(found: list[ThreadDict], pagination: Pagination, end: str | None) -> PaginatedResponse[ThreadDict]:
    info = PageInfo(hasNextPage=end is not None, startCursor=pagination.cursor, endCursor=end)
    return PaginatedResponse(pageInfo=info, data=found)
