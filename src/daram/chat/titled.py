"""Chats about numbered titles: what the second tutorial's service does, once for every door that offers it.

A title is a number in a category. Of the category ``OFFICIAL_DOCS`` it is an official collection, whose passages are
searched; of any other it is a reference, which goes into the prompt whole where it fits. A chat is a conversation that
is bound to its title by reference. What comes back are dictionaries of plain values, in the tutorial's words.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast

import msgspec

from daram import ids
from daram.chat.chatbot import Chatbot
from daram.chat.events import TERMINAL, Event
from daram.chat.running import Running
from daram.context.sources import cited
from daram.errors import AnswerLate, Conflict, DaramError, InvalidInput, ModelError, NotFound, Unsupported
from daram.knowledge.access import Reader, reader
from daram.knowledge.base import NO_DOCUMENTS
from daram.knowledge.collections import official_title
from daram.knowledge.documents import Documents
from daram.knowledge.references import Reference
from daram.model import Conversation, Message
from daram.store.documents import Scope

OFFICIAL_DOCS: Final = "OFFICIAL_DOCS"
"""The category whose titles are official collections."""
STATES: Final[Mapping[str, str]] = {
    "complete": "answered",
    "incomplete": "incomplete",
    "cancelled": "cancelled",
    "failed": "failed",
}
_NO_ANSWER: Final = "There is no usable answer; what was asked is kept. Ask again."
_LOST: Final = "The server lost this stream. The answer is not lost: GET the chat."

Json = dict[str, Any]
SourceOf = Callable[[str, Json], Json]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One event of an answer's stream: ``created``, ``delta`` with words (``AI``), ``delayed``, and in the end ``done``
    (the whole reply) or ``failed``, which has a ``code`` and ``words`` that anybody may read."""

    name: Literal["created", "delta", "delayed", "done", "failed"]
    data: Json
    code: str = ""
    words: str = ""


class TitledChats:
    """The chats about titles of everybody, on a chatbot with documents; whoever asks (``who``) has chats of their own.

    A client that hears nothing for ``delayed`` seconds counts as kept waiting; one that hears nothing for ``failed``
    seconds is told that the answer failed, and the answer is stopped: the question, and what was said, are kept. Zero
    is never. Who takes no stream hears nothing until the answer is whole. ``source`` makes an entry of ``sources`` from
    the chat's owner and the data of a citation.
    """

    def __init__(
        self, chatbot: Chatbot, *, delayed: float = 10.0, failed: float = 30.0, source: SourceOf | None = None
    ) -> None:
        self.chatbot = chatbot
        self.delayed = delayed
        self.failed = failed
        self._memory = chatbot.memory
        self._source: SourceOf = source or (lambda _, data: data)

    @property
    def documents(self) -> Documents:
        """What turns are answered from. Raises ``Unsupported`` for a chatbot without documents."""
        if self.chatbot.documents is None:
            raise Unsupported(NO_DOCUMENTS)
        return self.chatbot.documents

    # --- turns ---

    async def begin(
        self,
        who: Reader | str,
        category: str,
        title_no: str | int,
        text: str,
        *,
        chat: str | None = None,
        question: str | None = None,
        answer: str | None = None,
    ) -> TitledTurn:
        """Begin a chat about a title with its first question, which is stored when this returns.

        ``chat``, ``question``, ``answer``: the ids that they are to have, where a try may be repeated. Raises
        ``NotFound``, which names the title, or the category where there is none of it, and what ``Chatbot.start`` does.
        Nothing is left of a chat whose first question was refused, where this try made it.
        """
        asked = reader(who)
        _check_text(text)
        about = await self._title(asked, category, str(title_no))
        id = ids.conversation_id() if chat is None else chat
        named = {"category": category, "title_no": str(title_no)}
        try:
            await self._memory.create(asked.owner, id=id, metadata=named)
            new = True
        except Conflict:  # an earlier try made it
            await self._find(asked, id)
            new = False
        try:
            await self._bind(asked, id, about)
            return await self._start(asked, id, text, question, answer)
        except InvalidInput:
            if new:
                await self._memory.delete(asked.owner, id)
            raise

    async def go_on(
        self, who: Reader | str, chat: str, text: str, *, question: str | None = None, answer: str | None = None
    ) -> TitledTurn:
        """The next question of a chat, about its title as that is now: a corrected reference is answered from at once.

        Raises ``NotFound``, which names the chat, or the title where that was taken away, and what ``Chatbot.start``
        does.
        """
        asked = reader(who)
        _check_text(text)
        await self._check_bound(asked, await self._find(asked, chat))
        return await self._start(asked, chat, text, question, answer)

    async def _start(self, who: Reader, chat: str, text: str, question: str | None, answer: str | None) -> TitledTurn:
        message = text if question is None else Message(id=question, role="user", text=text)
        running = await self.chatbot.start(who.owner, chat, message, create=False, answer_id=answer)
        return TitledTurn(self, who.owner, chat, running)

    # --- chats ---

    async def list(self, who: Reader | str, *, limit: int = 20, cursor: str | None = None) -> Json:
        """The chats, the one changed last first: every conversation is one, through whatever door it was begun."""
        page = await self._memory.list(reader(who).owner, limit=limit, cursor=cursor)
        return {"chats": [_object(found) for found in page.items], "next_cursor": page.next_cursor}

    async def get(self, who: Reader | str, chat: str, *, limit: int = 100, cursor: str | None = None) -> Json:
        """A chat with what was said in it, the oldest first, and the answer that is being made. Raises ``NotFound``."""
        asked = reader(who)
        found = await self._find(asked, chat)
        page = await self._memory.messages(asked.owner, chat, limit=limit, cursor=cursor)
        said = [self._said(message, asked.owner) for message in page.items if message.role in ("user", "assistant")]
        if page.next_cursor is None:
            now = datetime.now(UTC)
            for answer in await self._memory.answers(asked.owner, chat):
                late = self.is_late((now - answer.created_at).total_seconds())
                state = "delayed" if late else "running"
                said.append({"id_ai": answer.id, "AI": answer.text, "sources": [], "state": state})
        return {**_object(found), "conversation": said, "next_cursor": page.next_cursor}

    async def delete(self, who: Reader | str, chat: str) -> None:
        """Delete a chat with what was uploaded into it. Raises ``NotFound``."""
        asked = reader(who)
        await self._find(asked, chat)
        await self._memory.delete(asked.owner, chat)

    # --- helpers ---

    def is_late(self, seconds: float) -> bool:
        """Whether who has waited for so long counts as kept waiting."""
        return bool(self.delayed) and seconds >= self.delayed

    def sources(self, message: Message, owner: str) -> builtins.list[Json]:
        """What an answer cites."""
        return [self._source(owner, data) for data in cited(message)]

    def _said(self, message: Message, owner: str) -> Json:
        if message.role == "user":
            return {"id_user": message.id, "USER": message.text}
        sources = self.sources(message, owner)
        return {"id_ai": message.id, "AI": message.text, "sources": sources, "state": STATES[message.status]}

    async def _find(self, who: Reader, id: str) -> Conversation:
        try:
            return await self._memory.get(who.owner, id)
        except NotFound:
            raise NotFound("chat", id) from None

    async def _title(self, who: Reader, category: str, title_no: str) -> Scope | Reference:
        if category != OFFICIAL_DOCS:
            return await self.documents.reference(who, category, title_no)
        scope = official_title(title_no)
        if await self.documents.collections.find(*scope) is None:
            raise NotFound("title", f"{category}/{title_no}")
        return scope

    async def _bind(self, who: Reader, chat: str, about: Scope | Reference) -> None:
        if isinstance(about, Scope):
            await self.documents.bind(who, chat, [about], create=False)
        else:
            await self.documents.bind(who, chat, reference=about, create=False)

    async def _check_bound(self, who: Reader, chat: Conversation) -> None:
        """Raise ``NotFound`` where what the chat is about is not there any more, or not for the reader."""
        binding = await self.documents.binding(who, chat.id)
        if binding is None:
            if {"category", "title_no"} <= chat.metadata.keys():  # a crash came before it was bound
                title = await self._title(who, chat.metadata["category"], chat.metadata["title_no"])
                await self._bind(who, chat.id, title)
            return
        if (named := binding.reference) is not None:
            who.check_read(named.owner, "title", f"{named.category}/{named.title_no}")
            await self.documents.references.get(named.owner, named.category, named.title_no)
        for scope in binding.collections:
            who.check_read(scope.owner, "title", scope.collection)
            if await self.documents.collections.find(*scope) is None:
                raise NotFound("title", scope.collection)


class TitledTurn:
    """A turn of a chat whose question is stored: take its answer whole (``reply``) or word by word (``told``)."""

    def __init__(self, chats: TitledChats, owner: str, chat: str, running: Running) -> None:
        self.chat = chat
        self.running = running
        self._chats = chats
        self._owner = owner

    async def reply(self) -> Json:
        """The answer once it is whole: ``{"id", "AI", "sources", "state"}``, ``state`` is ``delayed`` where it took its
        time. Raises ``AnswerLate`` where it took too long, and as ``Running.message``."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        coming = asyncio.ensure_future(self.running.message())
        try:
            await asyncio.wait({coming}, timeout=self._chats.failed or None)
            if not coming.done():
                raise await self._late()
            message = coming.result()
        finally:
            coming.cancel()  # the wait, not the answer
        said = self._done(message)
        if said["state"] == "answered" and self._chats.is_late(clock() - begun):
            said["state"] = "delayed"
        return said

    async def told(self) -> AsyncGenerator[Told, None]:
        """The events of the answer. Leaving them does not stop it."""
        loop = asyncio.get_running_loop()
        events = self.running.events()
        named = ((self._chats.delayed, "delayed"), (self._chats.failed, "failed"))
        waits = sorted((seconds, name) for seconds, name in named if seconds)
        heard, ahead = loop.time(), list(waits)
        coming: asyncio.Task[Event] | None = None
        try:
            while True:
                if coming is None:
                    coming = asyncio.ensure_future(cast("Any", anext(events)))
                patience = None if not ahead else max(0.0, heard + ahead[0][0] - loop.time())
                done, _ = await asyncio.wait({coming}, timeout=patience)
                if not done:
                    _, name = ahead.pop(0)
                    if name == "failed":
                        late = await self._late()
                        yield self._failed(late.code, str(late))
                        return
                    yield Told(name="delayed", data={"id": self.chat, "state": "delayed"})
                    continue
                event, coming = coming.result(), None
                if event.type == "created":
                    data = {"id": self.chat, "id_ai": self.running.answer_id, "state": "running"}
                    yield Told(name="created", data=data)
                elif event.type not in TERMINAL:
                    heard, ahead = loop.time(), list(waits)
                    yield Told(name="delta", data={"AI": event.text})
                elif event.type == "failed" or event.message is None:
                    yield self._failed(event.code or ModelError.code, _NO_ANSWER)
                    return
                else:
                    yield Told(name="done", data=self._done(event.message))
                    return
        except (DaramError, StopAsyncIteration) as error:
            yield self._failed(error.code if isinstance(error, DaramError) else "internal_error", _LOST)
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
            await events.aclose()

    async def _late(self) -> AnswerLate:
        await self._chats.chatbot.cancel(self._owner, self.chat, self.running.answer_id)
        return AnswerLate(self._chats.failed)

    def _failed(self, code: str, words: str) -> Told:
        return Told(name="failed", data={"id": self.chat, "state": "failed"}, code=code, words=words)

    def _done(self, message: Message) -> Json:
        sources = self._chats.sources(message, self._owner)
        return {"id": self.chat, "AI": message.text, "sources": sources, "state": STATES[message.status]}


def _check_text(text: str) -> None:
    if not text.strip():
        raise InvalidInput("user_input", "must not be empty")


def _object(found: Conversation) -> Json:
    return {
        "id": found.id,
        "category": found.metadata.get("category"),
        "title_no": found.metadata.get("title_no"),
        "title": found.title,
        "created_at": int(found.created_at.timestamp()),
        "updated_at": int(found.updated_at.timestamp()),
    }
