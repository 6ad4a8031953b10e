"""What one process of the service works with: opened at its start, closed in reverse order at its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from daram.chat import Chatbot
from daram.chat.events import EventLog
from daram.chat.recover import purge_forever
from daram.config import make_chatbot, make_events, make_model, open_documents, open_memory, prepare_data
from daram.knowledge.bound import GroupsOf
from daram.knowledge.documents import Documents
from daram.llm.absent import NoModel
from daram.llm.base import ChatModel
from daram.memory import Memory
from daram.settings import Settings

__all__ = ["Runtime", "current", "running"]

OnTitle = Callable[[str, str, str], Awaitable[None]]


class Runtime:
    """``settings``, ``memory``, ``models`` by the name that answers record, ``chatbot``, its log of ``events``, and its
    ``documents`` (None where the store keeps none).

    ``model`` is the one that the chatbot asks; without ``has_model`` it only says what to set up. ``on_title`` adds to
    whom the titles that it makes are told.
    """

    def __init__(
        self,
        settings: Settings,
        memory: Memory,
        model: ChatModel,
        events: EventLog,
        documents: Documents | None = None,
        *,
        has_model: bool = True,
    ) -> None:
        self._has_model = has_model
        self.settings = settings
        self.memory = memory
        self.model = model
        self.events = events
        self.documents = documents
        self.chatbot: Chatbot = make_chatbot(
            settings, memory, model, documents=documents, events=events, on_title=self._titled
        )
        self._listeners: list[OnTitle] = []
        self._closing: asyncio.Task[None] | None = None

    @property
    def models(self) -> Mapping[str, ChatModel]:
        """The models that can be asked for, by name; empty where none is set up. A local model's name may change while
        it is being loaded.
        """
        return {self.model.name: self.model} if self._has_model else {}

    @property
    def draining(self) -> bool:
        """Whether the end has begun: no turn begins any more."""
        return self._closing is not None

    def on_title(self, listener: OnTitle) -> None:
        """Call it with (owner, conversation, title) whenever a conversation got its title."""
        self._listeners.append(listener)

    async def drain(self) -> None:
        """Let no turn begin, wait at most ``DARAM_DRAIN`` seconds for the running answers, keep the others as
        ``incomplete`` (their streams end with that). To be called on SIGTERM, while connections are still open; a
        second call waits for the first.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self.chatbot.close(self.settings.drain))
        await asyncio.shield(self._closing)

    async def _titled(self, owner: str, conversation: str, title: str) -> None:
        for listener in self._listeners:
            await listener(owner, conversation, title)


_current: Runtime | None = None


def current() -> Runtime:
    """The runtime of this process. Raises ``RuntimeError`` while none is running."""
    if _current is None:
        raise RuntimeError("the service is not running: its lifespan has not begun, or has ended")
    return _current


@asynccontextmanager
async def running(
    settings: Settings,
    *,
    memory: Memory | None = None,
    model: ChatModel | None = None,
    events: EventLog | None = None,
    watch: Callable[[ChatModel], ChatModel] = lambda model: model,
    groups: GroupsOf | None = None,
) -> AsyncIterator[Runtime]:
    """Open all that the service needs and make it ``current()``; answers of dead processes are closed first.

    What is given (``memory``, ``model``, ``events``) is used as it is and not closed. ``watch`` wraps the model;
    ``groups`` tells the groups of an owner, of whose documents they may read.
    Raises ``ConfigError``, ``MissingExtra`` or a ``StoreError``.
    """
    global _current
    before = _current
    async with AsyncExitStack() as stack:
        if memory is None:
            prepare_data(settings)
            memory = await stack.enter_async_context(await open_memory(settings))
        if model is None:
            model = make_model(settings)
            stack.push_async_callback(model.close)
        if events is None:
            events = make_events(settings)
            stack.push_async_callback(events.close)
        documents = await stack.enter_async_context(open_documents(settings, memory, groups=groups))
        runtime = Runtime(settings, memory, watch(model), events, documents, has_model=not isinstance(model, NoModel))
        stack.push_async_callback(runtime.drain)
        await runtime.chatbot.recover()
        for work in (runtime.chatbot.sweep_forever(), purge_forever(memory)):
            await stack.enter_async_context(_beside(work))
        _current = runtime
        try:
            yield runtime
        finally:
            _current = before


@asynccontextmanager
async def _beside(work: Awaitable[None]) -> AsyncIterator[None]:
    """Something that goes on meanwhile, and is stopped at the end."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
