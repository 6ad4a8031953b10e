"""The data layer: what Chainlit calls, and what each call does in the store."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from chainlit.context import ChainlitContextException, get_context
from chainlit.data.base import BaseDataLayer
from chainlit.session import BaseSession, WebsocketSession
from chainlit.types import Feedback, PaginatedResponse, Pagination, ThreadDict, ThreadFilter
from chainlit.user import PersistedUser, User

from daram import sync
from daram.adapters.chainlit import records as side
from daram.adapters.chainlit import steps
from daram.adapters.chainlit.lines import Lines, persevere
from daram.adapters.chainlit.pages import cursor_behind, page_of
from daram.adapters.chainlit.shown import give_opinions, shown_steps
from daram.adapters.chainlit.writes import Beginning, StepWriter, of_step
from daram.errors import InvalidInput, NotFound, Unsupported
from daram.model import Conversation, Message
from daram.store.base import Store, SupportsRecords

if TYPE_CHECKING:
    from chainlit.element import Element, ElementDict
    from chainlit.step import StepDict

__all__ = ["DaramDataLayer"]

_ANONYMOUS = "anonymous"
_OF_THREAD = "thread"  # the line of what is said of a thread
_HELD = "daram"  # among a session's queues, which Chainlit's own sessions keep by method

Work = Callable[..., Coroutine[Any, Any, None]]
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
    ``deleted``: deletes what else there is of a thread that is deleted, by owner and thread: an agent's checkpoints. It
    must not write to that thread by this layer.
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
        if not 1 <= history <= 1000:
            raise InvalidInput("history", f"must be from 1 to 1,000, not {history:,}")
        if search < 1:
            raise InvalidInput("search", f"must be at least 1, not {search:,}")
        self._store: Store = store
        self._side = side.SideRecords(store)
        self._steps = StepWriter(store, self._side, messages=messages)
        self._lines = Lines()
        self._tasks: set[asyncio.Task[None]] = set()
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
        return self._user() if await self._steps.conversation(self._owner(), thread_id) else ""

    async def list_threads(self, pagination: Pagination, filters: ThreadFilter) -> PaginatedResponse[ThreadDict]:
        """One page of conversations, the one changed last first, without their steps.

        A search compares titles, word by word, in at most ``search`` conversations per call; ``endCursor`` goes on.
        """
        owner = self._owner(filters.userId)
        first = max(1, min(pagination.first, 100))
        rated, size = None, 100 if filters.search else first
        if filters.feedback is not None:
            rated, size = await self._side.kind(owner, side.FEEDBACK[filters.feedback]), 100
        match = partial(self._match, owner, filters, rated)
        found: list[ThreadDict] = []
        cursor, looked = pagination.cursor, 0
        while True:
            page = await self._store.list(owner, limit=size, cursor=cursor)
            for index, thread in enumerate(await side.each(match, page.items), 1):
                looked += 1
                if thread is not None:
                    found.append(thread)
                if len(found) < first and looked < self._search:
                    continue
                if index == len(page.items):
                    return page_of(found, pagination, page.next_cursor)
                end = await cursor_behind(self._store, owner, cursor, page.items[:index])
                return page_of(found, pagination, end)
            cursor = page.next_cursor
            if cursor is None:
                return page_of(found, pagination, None)

    async def get_thread(self, thread_id: str) -> ThreadDict | None:
        """The thread with its last messages and what belongs to them; None if this user has none of that id.

        It takes a handful of calls, however much is kept beside the messages (up to 1,000 things of a kind).
        """
        owner = self._owner()
        conversation = await self._steps.conversation(owner, thread_id)
        if conversation is None:
            return None
        try:
            messages, name, session, (kept, elements, *opinions) = await asyncio.gather(
                self._store.tail(owner, thread_id, self._history),
                self._name(owner, conversation),
                self._side.get(owner, side.SESSION, thread_id),
                side.each(
                    lambda namespace: self._side.kind(owner, namespace, thread_id),
                    (side.STEP, side.ELEMENT, *side.FEEDBACK.values()),
                ),
            )
        except NotFound:
            return None
        thread = steps.thread_of(conversation, self._user(), name)
        thread["metadata"] = (session or {}).get("metadata") or {}
        thread["tags"] = (session or {}).get("tags")
        thread["steps"] = await shown_steps(
            self._side, owner, thread_id, messages, kept, self._note, all_messages=len(messages) < self._history
        )
        await give_opinions(thread_id, thread["steps"], opinions)
        shown = [step["id"] for step in thread["steps"]]
        thread["elements"] = found = await self._side.elements(owner, thread_id, elements, shown)
        if self._elements is not None:
            found += [element for message in messages for element in self._elements(thread_id, message)]
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
        owner = self._owner(user_id)
        # Whoever is not logged in, Chainlit lets rename nothing: a name is what begins a thread.
        begins = user_id is not None or (name is not None and self._user() == _ANONYMOUS)
        change = partial(
            self._steps.change_thread,
            thread=thread_id,
            name=name,
            metadata=metadata,
            tags=tags,
            beginning=Beginning() if begins else None,
        )
        # A request is answered at once; what Chainlit does by itself, or while a tab is open, nobody repeats.
        once = not begins and not isinstance(_session(), WebsocketSession)
        await self._begin(thread_id, (_OF_THREAD,), "what was said", change, owner=owner, once=once)

    async def delete_thread(self, thread_id: str) -> None:
        """Delete the conversation and all that was kept beside it; a second time it is harmless."""
        owner = self._owner()
        async with self._lines.enter((owner, thread_id)):  # what is being written is deleted too
            if self._deleted is not None and await self._steps.conversation(owner, thread_id) is not None:
                await self._deleted(owner, thread_id)
            await self._side.clear_thread(owner, thread_id)
            try:
                await self._store.delete(owner, thread_id)
            except NotFound:
                pass

    # --- steps ---

    async def create_step(self, step_dict: StepDict) -> None:
        """Store a step, behind those that Chainlit made before it."""
        keep = partial(self._steps.keep, step=step_dict, new=True)
        await self._write(step_dict["threadId"], self._steps.lines(step_dict), f"step {step_dict['id']}", keep)

    async def update_step(self, step_dict: StepDict) -> None:
        """Store what a step has become."""
        keep = partial(self._steps.keep, step=step_dict, new=False)
        await self._write(step_dict["threadId"], self._steps.lines(step_dict), f"step {step_dict['id']}", keep)

    async def delete_step(self, step_id: str) -> None:
        """Delete a step of the open thread, with its message."""
        thread = _open_thread()
        drop = partial(self._steps.drop, thread=thread, step_id=step_id)
        await self._write(thread, (of_step(step_id),), f"that step {step_id} is deleted", drop)

    # --- feedback, favourites, elements ---

    async def upsert_feedback(self, feedback: Feedback) -> str:
        """Keep a user's opinion of a step: one per step, the last one counts. Returns its id. Raises ``NotFound``."""
        thread, step = feedback.threadId or _open_thread(), feedback.forId
        keep = partial(self._steps.rate, feedback=feedback, thread=thread)
        await self._begin(thread, (of_step(step),), f"an opinion of step {step}", keep, once=True)
        return steps.key(thread, step)

    async def delete_feedback(self, feedback_id: str) -> bool:
        """Forget it; whether it was there."""
        owner = self._owner()
        return any([await self._side.delete_key(owner, kept, feedback_id) for kept in side.FEEDBACK.values()])

    async def set_step_favorite(self, step_dict: StepDict, favorite: bool) -> StepDict:
        """Mark a message of the user as a favourite, or no longer. Raises ``NotFound``."""
        step_dict["metadata"] = {**(step_dict.get("metadata") or {}), "favorite": favorite}
        mark = partial(self._steps.mark, step=step_dict, favorite=favorite)
        what = f"whether step {step_dict['id']} is a favourite"
        await self._begin(step_dict["threadId"], self._steps.lines(step_dict), what, mark)
        return step_dict

    async def get_favorite_steps(self, user_id: str) -> list[StepDict]:
        """The user's favourites, the newest first, at most 1,000."""
        owner = self._owner(user_id)
        found = [cast("StepDict", steps.load(record.value)) for record in await self._side.scan(owner, side.FAVORITE)]
        return sorted(found, key=lambda step: step.get("createdAt") or "", reverse=True)

    async def get_element(self, thread_id: str, element_id: str) -> ElementDict | None:
        """An element; its content, if it was kept, is in its ``url`` (``data:``)."""
        return await self._side.element(self._owner(), thread_id, element_id)

    async def create_element(self, element: Element) -> None:
        """Keep an element with its content; raises ``TooLarge`` above 3 MiB: such a one needs a ``url`` of its own."""
        keep = partial(self._keep_element, element=element)
        lines = of_step(element.id), of_step(element.for_id or element.id)  # a step that is deleted takes it along
        await self._write(element.thread_id, lines, f"element {element.id}", keep)

    async def delete_element(self, element_id: str, thread_id: str | None = None) -> None:
        """Delete an element, of the open thread if none is named."""
        thread = thread_id or _open_thread()
        drop = partial(self._side.delete_element, thread=thread, element_id=element_id)
        await self._write(thread, (of_step(element_id),), f"that element {element_id} is deleted", drop)

    async def _keep_element(self, owner: str, element: Element) -> None:
        if await self._steps.appears(owner, element.thread_id):
            await self._side.put_element(owner, element)

    # --- the order of writes ---

    async def _write(self, thread: str, lines: tuple[str, ...], what: str, work: Work) -> None:
        """Do it in its turn, which is taken before anything is waited for."""
        session = _session()
        if isinstance(session, WebsocketSession):
            # What Chainlit shows before the first message of the user waits for it: until then there is no
            # conversation. Chainlit flushes it in its own time; it belongs in front of that message.
            if not session.has_first_interaction:
                held = session.thread_queues.setdefault(_HELD, deque())
                held.append((DaramDataLayer._in_turn, self, (thread, lines, what, work), {}))
                return
            held = session.thread_queues.get(_HELD, deque())
            while held:
                self._begin(*held.popleft()[2])
        await self._in_turn(thread, lines, what, work)

    async def _in_turn(self, thread: str, lines: tuple[str, ...], what: str, work: Work) -> None:
        await self._begin(thread, lines, what, work)

    def _begin(
        self,
        thread: str,
        lines: tuple[str, ...],
        what: str,
        work: Work,
        *,
        owner: str | None = None,
        once: bool = False,
    ) -> asyncio.Task[None]:
        owner = self._owner() if owner is None else owner
        place = self._lines.enter((owner, thread), *lines)

        async def turn() -> None:
            async with place:
                await persevere(f"{what} of thread {thread}", partial(work, owner), place.deleted, once=once)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            place.leave()  # also where it was cancelled before it began
            if not task.cancelled():
                task.exception()  # which has been told

        task = asyncio.create_task(turn())
        self._tasks.add(task)
        task.add_done_callback(ended)
        return task

    # --- the rest of what Chainlit asks ---

    async def build_debug_url(self) -> str:
        """There is none."""
        return ""

    async def close(self) -> None:
        """Finish what Chainlit has begun to write, for 10 s at most, and close the store; a second call is harmless."""
        await self._lines.empty()
        await self._store.close()

    # --- helpers ---

    def _owner(self, user: str | None = None) -> str:
        """Whose it is; of this user where nobody else is named."""
        given = self._owner_given() if callable(self._owner_given) else self._owner_given
        return user or self._user() if given is None else given

    def _user(self) -> str:
        """Whom Chainlit asks for: it lets them see what it finds under this name, whoever owns it here."""
        session = _session()
        if session is None:
            return _asking.get() or _ANONYMOUS
        return session.user.identifier if session.user else _ANONYMOUS

    async def _name(self, owner: str, conversation: Conversation) -> str | None:
        """The title, or the beginning of the first message where there is none yet."""
        if conversation.title is not None or conversation.head is None:
            return conversation.title
        try:
            opening = await self._store.messages(owner, conversation.id, limit=1)
        except NotFound:
            return None
        return steps.title_of(opening.items[0].text) if opening.items else None

    async def _match(
        self, owner: str, filters: ThreadFilter, rated: side.Kind | None, conversation: Conversation
    ) -> ThreadDict | None:
        if rated is not None and not await rated.any_below(conversation.id):
            return None
        name = await self._name(owner, conversation)
        if filters.search and not steps.has_words(name or "", filters.search):
            return None
        return steps.thread_of(conversation, filters.userId or self._user(), name)


def _session() -> BaseSession | None:
    try:
        return get_context().session
    except ChainlitContextException:
        return None


def _open_thread() -> str:
    session = _session()
    if session is None:
        raise InvalidInput("threadId", "must be given where no thread is open")
    return str(session.thread_id)
