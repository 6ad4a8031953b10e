"""What one process of a Django project works with: opened when it is first asked for, closed when the process ends.

A forked child (gunicorn's ``--preload``, a worker of Celery) opens its own; what its parent had is left to the parent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from typing import Final

from django.db import close_old_connections

from daram import config, memory, sync
from daram.adapters.django import conf
from daram.adapters.django.faces import AsyncChatbot, AsyncMemory, SyncChatbot, SyncMemory, hop
from daram.adapters.django.library import AsyncDocuments, AsyncTitledChats, SyncDocuments, SyncTitledChats
from daram.adapters.django.telling import TellingMemory
from daram.chat import Chatbot
from daram.chat.recover import purge_forever
from daram.chat.titled import TitledChats
from daram.errors import SyncInAsync, Unsupported
from daram.knowledge.base import NO_DOCUMENTS
from daram.knowledge.documents import Documents
from daram.llm.base import ChatModel
from daram.settings import Settings

log = logging.getLogger(__name__)

_AT_EXIT: Final = 30.0
"""How long the end of a process waits for its store to close, beside ``DRAIN``, in seconds."""

MakeModel = Callable[[], ChatModel]
Groups = Callable[[str], Sequence[str]]


class Life:
    """A store, and documents and a chatbot on it as soon as they are asked for. All of it is used on the portal's loop
    alone.
    """

    def __init__(self, settings: Settings, memory: memory.Memory, make_model: MakeModel | None) -> None:
        self.settings = settings
        self.memory = memory
        self.pid = os.getpid()
        self._make_model = make_model
        self._documents: Documents | None = None
        self._chatbot: Chatbot | None = None
        self._making = asyncio.Lock()
        self._groups = conf.groups_teller()
        self._tried = False
        self._stack = AsyncExitStack()

    @classmethod
    async def begin(cls, settings: Settings, make_model: MakeModel | None = None) -> Life:
        """Open the store. Raises ``ConfigError``, ``MissingExtra`` or a ``StoreError``."""
        return cls(settings, await config.open_memory(settings), make_model)

    async def chatbot(self) -> Chatbot:
        """The chatbot. Answers of dead processes are closed, and what has expired is deleted, from now on."""
        async with self._making:
            if self._chatbot is None:
                await self._open_documents()
                make = self._make_model or (lambda: config.make_model(self.settings))
                model = make()
                self._stack.push_async_callback(model.close)
                events = config.make_events(self.settings)
                self._stack.push_async_callback(events.close)
                telling = TellingMemory(self.memory)
                self._stack.push_async_callback(telling.close)
                self._chatbot = chatbot = config.make_chatbot(
                    self.settings, telling, model, documents=self._documents, events=events
                )
                self._stack.push_async_callback(chatbot.close, self.settings.drain)
                for work in (chatbot.sweep_forever(), purge_forever(self.memory)):
                    self._stack.push_async_callback(_cancelled, asyncio.ensure_future(work))
            return self._chatbot

    async def documents(self) -> Documents:
        """The documents, read in the background from now on. Raises ``Unsupported`` where the store keeps none."""
        async with self._making:
            await self._open_documents()
        if self._documents is None:
            raise Unsupported(NO_DOCUMENTS)
        return self._documents

    async def titled_chats(self) -> TitledChats:
        """Chats about titles, on the chatbot."""
        settings = self.settings
        return TitledChats(await self.chatbot(), delayed=settings.chat_delayed, failed=settings.chat_failed)

    async def _open_documents(self) -> None:
        if not self._tried:
            tell = self._groups
            groups = None if tell is None else lambda owner: asyncio.to_thread(_told, tell, owner)
            opened = config.open_documents(self.settings, self.memory, groups=groups)
            self._documents = await self._stack.enter_async_context(opened)
            self._tried = True

    async def end(self) -> None:
        """Wait ``DRAIN`` seconds at most for running answers, keep the others as incomplete, close everything."""
        try:
            await self._stack.aclose()
        finally:
            await self.memory.close()


def _told(groups: Groups, owner: str) -> Sequence[str]:
    try:
        return groups(owner)
    finally:
        close_old_connections()  # what it opened on this thread, as at the end of a request


async def _cancelled(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# --- the life of this process ---------------------------------------------------------------------------------------

_lock = threading.Lock()
_life: Future[Life] | None = None
_pid = 0
# After a fork the parent's store is of no use here, but its connections must not be closed by letting go of them.
_left_behind: list[Future[Life]] = []


def _current() -> Future[Life]:
    """This process's life, which begins with the first call; one that could not begin is tried anew by the next."""
    global _life, _pid
    with _lock:
        if _life is not None and _pid != os.getpid():
            _left_behind.append(_life)
            _life = None
        if _life is not None and _life.done() and _life.exception() is not None:
            _life = None
        if _life is None:
            _life = _begun(conf.settings(), conf.model_maker())
            _pid = os.getpid()
        return _life


def _begun(settings: Settings, make_model: MakeModel | None) -> Future[Life]:
    return asyncio.run_coroutine_threadsafe(Life.begin(settings, make_model), sync.portal().loop)


def _here() -> Life:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _current().result()
    raise SyncInAsync("on an event loop use aget_memory() and aget_chatbot(), which do not block it")


async def _ahere() -> Life:
    # Shielded: whoever is cancelled must not take the store from all others that wait for it.
    return await asyncio.shield(asyncio.wrap_future(await asyncio.to_thread(_current)))


def get_documents() -> SyncDocuments:
    """The documents of this process, for synchronous code. Raises as ``get_memory``, and ``Unsupported`` where the
    store keeps none.
    """
    return SyncDocuments(sync.portal().run(_here().documents()))


async def aget_documents() -> AsyncDocuments:
    """The documents of this process, for asynchronous code, on any event loop."""
    return AsyncDocuments(await hop((await _ahere()).documents()))


def get_titled_chats() -> SyncTitledChats:
    """Chats about titles, for synchronous code: see ``daram.chat.titled``. Raises as ``get_memory``."""
    return SyncTitledChats(sync.portal().run(_here().titled_chats()))


async def aget_titled_chats() -> AsyncTitledChats:
    """Chats about titles, for asynchronous code, on any event loop."""
    return AsyncTitledChats(await hop((await _ahere()).titled_chats()))


def get_memory() -> SyncMemory:
    """The store of this process, for synchronous code. Raises ``ConfigError``, ``MissingExtra`` or a ``StoreError``."""
    return SyncMemory(_here().memory)


async def aget_memory() -> AsyncMemory:
    """The store of this process, for asynchronous code, on any event loop."""
    return AsyncMemory((await _ahere()).memory)


def get_chatbot() -> SyncChatbot:
    """The chatbot of this process, for synchronous code. Raises as ``get_memory``."""
    return SyncChatbot(sync.portal().run(_here().chatbot()))


async def aget_chatbot() -> AsyncChatbot:
    """The chatbot of this process, for asynchronous code, on any event loop."""
    return AsyncChatbot(await hop((await _ahere()).chatbot()))


def close() -> None:
    """End this process's life, if it has begun; the next call begins another. It happens by itself at the exit."""
    global _life
    with _lock:
        life, _life = _life, None
    if life is not None and _pid == os.getpid():
        _end(life)


def _end(life: Future[Life]) -> None:
    if life.exception() is None:  # waits until it has begun
        found = life.result()
        ending = asyncio.run_coroutine_threadsafe(found.end(), sync.portal().loop)
        ending.result(found.settings.drain + _AT_EXIT)


@contextmanager
def instead(settings: Settings, make_model: MakeModel | None = None) -> Iterator[SyncMemory]:
    """Another life for a while, in this process: for tests. Whoever asks meanwhile gets it; its store is closed."""
    global _life, _pid
    life = _begun(settings, make_model)
    memory = SyncMemory(life.result().memory)
    with _lock:
        before, before_pid = _life, _pid
        _life, _pid = life, os.getpid()
    try:
        yield memory
    finally:
        with _lock:
            _life, _pid = before, before_pid
        _end(life)


def _close_at_exit() -> None:
    try:
        close()
    except Exception:
        log.exception("Daram's store was not closed at the end of the process")


def _forget() -> None:
    global _lock
    _lock = threading.Lock()


sync.at_exit(_close_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
