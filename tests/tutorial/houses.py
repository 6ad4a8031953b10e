"""One story, two houses: the tutorial's design and Daram, behind the same few calls."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.tutorial.design import OFFICIAL, Clock, DoesNotExist, Views
from tests.unit.chat_script import ScriptedModel, chatbot

from daram import ids
from daram.cache.cached import CachedStore
from daram.cache.memory import MemoryCache
from daram.errors import DaramError, NotFound
from daram.knowledge.access import Reader
from daram.knowledge.collections import official_title
from daram.knowledge.documents import Documents
from daram.memory import Memory
from daram.store.url import store_from_url

TTL = 600.0
LESSONS = "LESSONS"
ADMIN = Reader("root", admin=True)


class Missing(Exception):
    """What is asked for is not there; the text names it."""


class Tutorial:
    """The tutorial. ``queues``: whether a second turn of a chat waits for the first."""

    queues = False

    def __init__(self, model: ScriptedModel, clock: Clock) -> None:
        self.model = model
        self.views = Views(model, clock)

    async def begin(self, user: str, text: str, category: str = LESSONS, title_no: int = 1) -> Any:
        body = {"category": category, "title_no": title_no, "user_input": text}
        return (await self.views.post(user, body))["id"]

    async def say(self, user: str, chat: Any, text: str) -> str:
        return str((await self.views.post(user, {"user_input": text}, chat))["AI"])

    async def history(self, user: str, chat: Any) -> list[str]:
        try:
            return [str(list(entry.values())[-1]) for entry in self.views.get(user, chat)[1:]]
        except DoesNotExist:
            raise Missing(f"chat {chat}") from None

    async def delete(self, user: str, chat: Any) -> None:
        self.views.delete(user, chat)

    async def put_reference(self, title_no: int, title: str, text: str) -> None:
        self.views.references[LESSONS, title_no] = (title, text)

    async def put_documents(self, title_no: int, text: str) -> None:
        self.views.documents[title_no] = text

    async def finish(self) -> None:
        """Titles are made within the turn."""

    def written(self) -> int:
        """Bytes of conversations that have been written so far."""
        return self.views.table.written

    def plant(self, value: object) -> None:
        """Somebody who can write to the cache puts this there."""
        for key in self.views.cache.values:
            self.views.cache.set(key, value, 600.0)


class Watched(MemoryCache):
    """A cache in which a test can write, and count what is written."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(ttl=TTL, clock=clock)
        self.written = 0
        self.planted: bytes | None = None

    async def get(self, key: bytes) -> bytes | None:
        return self.planted or await super().get(key)

    async def put(self, key: bytes, value: bytes) -> None:
        self.written += len(value)
        await super().put(key, value)

    async def swap(self, key: bytes, stamp: bytes, value: bytes) -> None:
        self.written += len(value)
        await super().swap(key, stamp, value)


class Daram:
    """Daram: SQLite, a cache of 600 s in front of it, documents."""

    queues = True

    def __init__(self, model: ScriptedModel, memory: Memory, cache: Watched) -> None:
        self.model = model
        self.memory = memory
        self.cache = cache
        self.documents = Documents(memory)
        self.chatbot = chatbot(memory, model, documents=self.documents, titles=True)

    async def begin(self, user: str, text: str, category: str = LESSONS, title_no: int = 1) -> Any:
        chat = ids.conversation_id()
        try:
            if category == OFFICIAL:
                await self.documents.bind(user, chat, [official_title(title_no)])
            else:
                await self.documents.bind(user, chat, reference=(category, title_no), only=False)
        except NotFound as error:
            raise Missing(str(error)) from None
        await self.chatbot.ask(user, chat, text)
        return chat

    async def say(self, user: str, chat: Any, text: str) -> str:
        try:
            return (await self.chatbot.ask(user, chat, text)).text
        except DaramError as error:
            raise Missing(str(error)) if error.code in ("gone", "not_found") else error from None

    async def history(self, user: str, chat: Any) -> list[str]:
        try:
            return [message.text for message in await self.memory.tail(user, chat, 100)]
        except NotFound as error:
            raise Missing(str(error)) from None

    async def delete(self, user: str, chat: Any) -> None:
        await self.memory.delete(user, chat)

    async def put_reference(self, title_no: int, title: str, text: str) -> None:
        await self.documents.put_reference(ADMIN, LESSONS, title_no, title, text, owner="official")

    async def put_documents(self, title_no: int, text: str) -> None:
        await self.documents.add(ADMIN, official_title(title_no), text.encode(), name="docs.txt", wait=True)

    async def finish(self) -> None:
        """What comes after the answers is done."""
        await self.chatbot.close()

    def written(self) -> int:
        return self.cache.written

    def plant(self, value: object) -> None:
        self.cache.planted = pickle.dumps(value)


House = Tutorial | Daram


@asynccontextmanager
async def opened(kind: type[House], model: ScriptedModel, clock: Clock, path: Path) -> AsyncIterator[House]:
    """One of the two."""
    if kind is Tutorial:
        yield Tutorial(model, clock)
        return
    cache = Watched(clock)
    url = f"sqlite:///{path}/daram.db"
    memory = Memory(CachedStore(store_from_url(url), cache), url)
    house = Daram(model, memory, cache)
    try:
        yield house
    finally:
        await house.chatbot.close()
        await house.documents.close()
        await memory.close()
