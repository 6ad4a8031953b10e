"""LangChain's chat history on a Daram store: a session is a conversation.

::

    DaramChatMessageHistory("alice-1", url="sqlite:///daram.db", owner="alice")

LangChain deprecates its history classes (removal in its 2.0): a new program does better with LangGraph and
``daram.adapters.langgraph.DaramSaver``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from daram.adapters.versions import require
from daram.errors import DaramError, InvalidInput, NotFound

require("the adapter for LangChain", "langchain_core", "langchain-core", "langchain", oldest="1.4", below="2")

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from daram import memory as memories
from daram import sync
from daram.adapters.appending import append_all, clear, outcome
from daram.llm.langchain_messages import from_message, to_message
from daram.store.base import Store
from daram.text.tokens import MESSAGE_OVERHEAD, TokenCounter

__all__ = ["DaramChatMessageHistory"]

R = TypeVar("R")

log = logging.getLogger(__name__)

_PAGE: Final = 200

_opened: dict[tuple[int, str], asyncio.Task[memories.Memory]] = {}


class DaramChatMessageHistory(BaseChatMessageHistory):
    """The messages of the conversation ``session_id`` of ``owner``; every kind of message comes back as it was.

    ``memory``: of ``daram.open`` or ``daram.sync.open``; without it the store at ``url`` is opened by the first call
    that needs it (which raises ``ConfigError`` or a ``StoreError`` where that fails), once in this process, and stays
    open. ``window``: how many messages are read, the last ones (None: all); ``tokens``: at most about as many tokens of
    them. What is read never begins with the result of a tool whose call is not there.

    What is added is durable on return, in one piece (more than 100 messages: each hundred), beside what others add at
    the same time. Raises ``InvalidInput`` for a message with something in it that is not JSON; ``Gone`` for 24 hours
    after another door deleted the conversation.
    """

    def __init__(
        self,
        session_id: str,
        *,
        url: str = memories.DEFAULT_URL,
        owner: str = "default",
        window: int | None = 50,
        tokens: int | None = None,
        memory: Store | sync.Memory | None = None,
    ) -> None:
        for name, number in (("window", window), ("tokens", tokens)):
            if number is not None and number < 1:
                raise InvalidInput(name, f"must be at least 1, or None, not {number}")
        self.session_id = session_id
        self.owner = owner
        self.window = window
        self.tokens = tokens
        self._url = url
        self._given: Store | None = memory.inner if isinstance(memory, sync.Memory) else memory

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # a variable there, for a property to override
        """``aget_messages``, synchronously."""
        return sync.portal().run(self.aget_messages())

    async def aget_messages(self) -> list[BaseMessage]:
        """The last messages, the oldest first; none where there is no conversation."""
        try:
            return _without_orphans(await self._on_store(self._read))
        except NotFound:
            return []

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """``aadd_messages``, synchronously."""
        sync.portal().run(self.aadd_messages(messages))

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add messages behind what is there; a conversation that is not there is made."""
        made = [to_message(message, exact=True) for message in messages]
        await outcome(self._on_store(lambda store: append_all(store, self.owner, self.session_id, made)))

    def clear(self) -> None:
        """``aclear``, synchronously."""
        sync.portal().run(self.aclear())

    async def aclear(self) -> None:
        """Delete everything that was said; an empty conversation is left, which can go on."""
        await outcome(self._on_store(lambda store: clear(store, self.owner, self.session_id)))

    async def _on_store(self, work: Callable[[Store], Coroutine[Any, Any, R]]) -> R:
        if self._given is not None:
            return await work(self._given)

        async def there() -> R:
            return await work(await _open(self._url))

        # Its connections are closed with the process: those of a loop that ended before could not be.
        loop = sync.portal().loop
        if asyncio.get_running_loop() is loop:
            return await there()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), loop))

    async def _read(self, store: Store) -> list[BaseMessage]:
        counter, left, most = TokenCounter(), self.tokens, self.window
        if left is not None:  # of messages that say nothing no more than these fit
            most = min(left // MESSAGE_OVERHEAD, left if most is None else most)
        found: list[BaseMessage] = []
        cursor = None
        while most is None or len(found) < most:
            if most is not None and most <= _PAGE:
                newest = (await store.tail(self.owner, self.session_id, most))[::-1]
            else:
                page = await store.messages(self.owner, self.session_id, limit=_PAGE, cursor=cursor, order="desc")
                newest, cursor = page.items, page.next_cursor
            for message in map(from_message, newest):
                if left is not None and (left := left - counter.message(to_message(message))) < 0:
                    return found[::-1]
                found.append(message)
            if cursor is None:
                break
        return found[:most][::-1]


def _without_orphans(messages: list[BaseMessage]) -> list[BaseMessage]:
    asked: set[str | None] = set()
    found: list[BaseMessage] = []
    for message in messages:
        if isinstance(message, AIMessage):
            asked |= {call["id"] for call in (*message.tool_calls, *message.invalid_tool_calls)}
        # Endpoints refuse the result of a call that they are not shown.
        if not isinstance(message, ToolMessage) or message.tool_call_id in asked:
            found.append(message)
    return found


async def _open(url: str) -> memories.Memory:
    """The store at ``url``, opened once in this process. On the portal's loop only."""
    key = (os.getpid(), url)

    async def work() -> memories.Memory:
        try:
            return await memories.open(url)
        except BaseException:
            _opened.pop(key, None)  # the next call tries again
            raise

    if key not in _opened:
        _opened[key] = asyncio.ensure_future(work())
    # A caller that is cancelled leaves it to the others who wait.
    return await asyncio.shield(_opened[key])


async def _close_all() -> None:
    for key in [key for key in _opened if key[0] == os.getpid()]:
        try:
            await (await _opened.pop(key)).close()
        except DaramError:
            log.exception("a chat history's store was not closed at the end of the process")


def _close() -> None:
    """At the end of the process: nobody else knows what was opened by its URL."""
    if any(pid == os.getpid() for pid, _ in _opened):
        sync.portal().run(_close_all())


sync.at_exit(_close)
