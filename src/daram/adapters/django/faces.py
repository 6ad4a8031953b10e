"""The store and the chatbot of a process, from any thread and any event loop.

All of Daram lives on one event loop in a thread of its own (``daram.sync.portal``): Django makes event loops as it
needs them, one for each request under WSGI, and pools of connections, running answers and their logs outlive requests.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import aclosing, suppress
from queue import SimpleQueue
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from daram import chat, sync
from daram.adapters.django.signals import conversation_deleted, owner_deleted
from daram.chat.events import Event
from daram.store.wrapper import StoreWrapper

__all__ = [
    "AsyncChatbot",
    "AsyncMemory",
    "AsyncRunning",
    "SyncChatbot",
    "SyncMemory",
    "SyncRunning",
    "afollow",
    "blocking",
    "follow",
    "hop",
    "hopping",
    "same",
]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
E = TypeVar("E")


class _Face(Protocol):
    inner: Any


async def hop(work: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine on the portal's loop and await it on this one."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, sync.portal().loop))


async def _awaited(work: Awaitable[R]) -> R:
    return await work


def blocking(
    method: Callable[Concatenate[Any, P], Awaitable[R]], then: Callable[[R], S]
) -> Callable[Concatenate[_Face, P], S]:
    """A method that calls that of ``inner`` and waits for it."""

    @functools.wraps(method)
    def call(face: _Face, /, *args: P.args, **kwargs: P.kwargs) -> S:
        return then(sync.portal().run(_awaited(method(face.inner, *args, **kwargs))))

    return call


def hopping(
    method: Callable[Concatenate[Any, P], Awaitable[R]], then: Callable[[R], S]
) -> Callable[Concatenate[_Face, P], Coroutine[Any, Any, S]]:
    """A method that calls that of ``inner`` on the portal's loop."""

    @functools.wraps(method)
    async def call(face: _Face, /, *args: P.args, **kwargs: P.kwargs) -> S:
        return then(await hop(_awaited(method(face.inner, *args, **kwargs))))

    return call


def same(value: R) -> R:
    """The value, as it is."""
    return value


# --- the store ------------------------------------------------------------------------------------------------------


class SyncMemory(sync.Memory):
    """The store of this process, for synchronous code: see ``daram.sync.Memory``. It closes at the exit."""

    def delete(self, owner: str, id: str) -> None:
        """See ``Store.delete``; tells ``conversation_deleted``."""
        super().delete(owner, id)
        conversation_deleted.send_robust(type(self), owner=owner, conversation=id)

    def delete_owner(self, owner: str) -> int:
        """See ``Store.delete_owner``; tells ``owner_deleted``."""
        count = super().delete_owner(owner)
        owner_deleted.send_robust(type(self), owner=owner, conversations=count)
        return count

    def close(self) -> None:
        """Nothing: the store belongs to the process."""


class _OnPortal(StoreWrapper):
    """A store whose every operation runs on the portal's loop."""


for _name, _operation in list(vars(StoreWrapper).items()):
    if inspect.iscoroutinefunction(_operation):
        setattr(_OnPortal, _name, hopping(_operation, same))


class AsyncMemory(_OnPortal):
    """The store of this process, for asynchronous code: see ``daram.Memory``. It closes at the exit."""

    async def delete(self, owner: str, id: str) -> None:
        """See ``Store.delete``; tells ``conversation_deleted``."""
        await super().delete(owner, id)
        await conversation_deleted.asend_robust(type(self), owner=owner, conversation=id)

    async def delete_owner(self, owner: str) -> int:
        """See ``Store.delete_owner``; tells ``owner_deleted``."""
        count = await super().delete_owner(owner)
        await owner_deleted.asend_robust(type(self), owner=owner, conversations=count)
        return count

    async def close(self) -> None:
        """Nothing: the store belongs to the process."""


# --- an answer ------------------------------------------------------------------------------------------------------


async def _pump(events: AsyncGenerator[E, None], put: Callable[[E | BaseException | None], None]) -> None:
    """Hand on the events, what went wrong, the end: in one task, since what an asynchronous generator does belongs to
    the task that asks it.
    """
    end: BaseException | None = None
    try:
        async with aclosing(events) as found:
            async for event in found:
                put(event)
    except Exception as error:  # noqa: BLE001  # it is raised where the events are read
        end = error
    put(end)


def _start_pump(events: AsyncGenerator[E, None], put: Callable[[E | BaseException | None], None]) -> Future[None]:
    return asyncio.run_coroutine_threadsafe(_pump(events, put), sync.portal().loop)


def follow(events: AsyncGenerator[E, None]) -> Iterator[E]:
    """What a generator on the portal's loop yields, for synchronous code. Leaving it closes the generator."""
    news: SimpleQueue[E | BaseException | None] = SimpleQueue()
    pump = _start_pump(events, news.put)
    try:
        while (item := news.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        pump.cancel()


async def afollow(events: AsyncGenerator[E, None]) -> AsyncGenerator[E, None]:
    """What a generator on the portal's loop yields, on this loop. Leaving it closes the generator."""
    news: asyncio.Queue[E | BaseException | None] = asyncio.Queue()
    here = asyncio.get_running_loop()
    pump = _start_pump(events, lambda item: _put(here, news, item))
    try:
        while (item := await news.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        pump.cancel()


def _put(loop: asyncio.AbstractEventLoop, news: asyncio.Queue[E], item: E) -> None:
    with suppress(RuntimeError):  # whoever read them has gone with their loop
        loop.call_soon_threadsafe(news.put_nowait, item)


class SyncRunning:
    """A turn whose question is stored, for synchronous code: see ``daram.Running``."""

    def __init__(self, inner: chat.Running) -> None:
        self.inner = inner
        self.answer_id, self.question, self.state = inner.answer_id, inner.question, inner.state

    def events(self, after: int = 0) -> Iterator[Event]:
        """The events of the answer with ``seq > after``; the last one is terminal. Leaving them does not stop it."""
        return follow(self.inner.events(after))

    message = blocking(chat.Running.message, same)


class AsyncRunning:
    """A turn whose question is stored, for asynchronous code: see ``daram.Running``."""

    def __init__(self, inner: chat.Running) -> None:
        self.inner = inner
        self.answer_id, self.question, self.state = inner.answer_id, inner.question, inner.state

    def events(self, after: int = 0) -> AsyncGenerator[Event, None]:
        """The events of the answer with ``seq > after``; the last one is terminal. Leaving them does not stop it."""
        return afollow(self.inner.events(after))

    message = hopping(chat.Running.message, same)


# --- the chatbot ----------------------------------------------------------------------------------------------------


class SyncChatbot:
    """The chatbot of this process, for synchronous code: see ``daram.Chatbot``."""

    def __init__(self, inner: chat.Chatbot) -> None:
        self.inner = inner

    start = blocking(chat.Chatbot.start, SyncRunning)
    regenerate = blocking(chat.Chatbot.regenerate, SyncRunning)
    ask = blocking(chat.Chatbot.ask, same)
    cancel = blocking(chat.Chatbot.cancel, same)

    def resume(self, owner: str, conversation: str, answer_id: str, *, after: int = 0) -> Iterator[Event]:
        """See ``daram.Chatbot.resume``."""
        return follow(self.inner.resume(owner, conversation, answer_id, after=after))


class AsyncChatbot:
    """The chatbot of this process, for asynchronous code: see ``daram.Chatbot``."""

    def __init__(self, inner: chat.Chatbot) -> None:
        self.inner = inner

    start = hopping(chat.Chatbot.start, AsyncRunning)
    regenerate = hopping(chat.Chatbot.regenerate, AsyncRunning)
    ask = hopping(chat.Chatbot.ask, same)
    cancel = hopping(chat.Chatbot.cancel, same)

    def resume(self, owner: str, conversation: str, answer_id: str, *, after: int = 0) -> AsyncGenerator[Event, None]:
        """See ``daram.Chatbot.resume``."""
        return afollow(self.inner.resume(owner, conversation, answer_id, after=after))
