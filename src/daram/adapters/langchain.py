"""LangChain's chat history on a Daram store: a session is a conversation.

::

    DaramChatMessageHistory("alice-1", url="sqlite:///daram.db", owner="alice")

LangChain deprecates its history classes (removal in its 2.0): a new program does better with LangGraph and
``daram.adapters.langgraph.DaramSaver``.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import Final

from daram.adapters.versions import require
from daram.errors import DaramError, InvalidInput, NotFound

require("the adapter for LangChain", "langchain_core", "langchain-core", "langchain", oldest="1.4", below="2")

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from daram import sync
from daram.adapters.appending import append_all, clear
from daram.llm.langchain_messages import from_message, to_message
from daram.memory import DEFAULT_URL
from daram.model import Message
from daram.store.base import Store
from daram.text.tokens import TokenCounter

__all__ = ["DaramChatMessageHistory"]

log = logging.getLogger(__name__)

_PAGE: Final = 200

_opened: dict[tuple[int, str], sync.Memory] = {}
_lock = threading.Lock()


class DaramChatMessageHistory(BaseChatMessageHistory):
    """The messages of the conversation ``session_id`` of ``owner``; every kind of message comes back as it was.

    ``memory``: of ``daram.open`` or ``daram.sync.open``; without it the store at ``url`` is opened once in this process
    and stays open. ``window``: how many messages are read, the last ones (None: all); ``tokens``: at most about as many
    tokens of them. What is read never begins with the result of a tool whose call is not there.

    What is added is durable on return, each batch in one piece, beside what others add at the same time. Raises
    ``InvalidInput`` for a message with something in it that is not JSON; ``Gone`` for 24 hours after another door
    deleted the conversation.
    """

    def __init__(
        self,
        session_id: str,
        *,
        url: str = DEFAULT_URL,
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
        found = memory if memory is not None else _open(url)
        self._store: Store = found.inner if isinstance(found, sync.Memory) else found

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # a variable there, for a property to override
        """``aget_messages``, synchronously."""
        return sync.portal().run(self.aget_messages())

    async def aget_messages(self) -> list[BaseMessage]:
        """The last messages, the oldest first; none where there is no conversation."""
        try:
            stored = await self._read()
        except NotFound:
            return []
        return self._bounded([from_message(message) for message in stored])

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """``aadd_messages``, synchronously."""
        sync.portal().run(self.aadd_messages(messages))

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add messages behind what is there; a conversation that is not there is made."""
        made = [to_message(message, exact=True) for message in messages]
        await append_all(self._store, self.owner, self.session_id, made)

    def clear(self) -> None:
        """``aclear``, synchronously."""
        sync.portal().run(self.aclear())

    async def aclear(self) -> None:
        """Delete everything that was said; an empty conversation is left, which can go on."""
        await clear(self._store, self.owner, self.session_id)

    async def _read(self) -> list[Message]:
        if self.window is not None and self.window <= _PAGE:
            return await self._store.tail(self.owner, self.session_id, self.window)
        found: list[Message] = []
        cursor = None
        while self.window is None or len(found) < self.window:
            page = await self._store.messages(self.owner, self.session_id, limit=_PAGE, cursor=cursor, order="desc")
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        return found[: self.window][::-1]

    def _bounded(self, messages: list[BaseMessage]) -> list[BaseMessage]:
        if self.tokens is not None:
            counter, left, start = TokenCounter(), self.tokens, len(messages)
            while start and (left := left - counter.message(to_message(messages[start - 1]))) >= 0:
                start -= 1
            messages = messages[start:]
        return _without_orphans(messages)


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


def _open(url: str) -> sync.Memory:
    with _lock:
        known = _opened.get((os.getpid(), url))
    # Not under the lock: opening may take as long as the server likes.
    if known is None:
        opened = sync.open(url)
        with _lock:
            known = _opened.setdefault((os.getpid(), url), opened)
        if known is not opened:
            opened.close()
    return known


def _close() -> None:
    """At the end of the process: nobody else knows what was opened by its URL."""
    for pid, url in list(_opened):
        if pid == os.getpid():
            try:
                _opened.pop((pid, url)).close()
            except DaramError:
                log.exception("a chat history's store was not closed at the end of the process")


sync.at_exit(_close)
